from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from espnet3.utils.errors import StorageError
from espnet3.utils.stage_files import StageFiles


def run(folder: Path, name: str) -> None:
    files = StageFiles(folder, "train", {"run": name, "state": "running"})
    files.stream.write(name)
    files.write_metadata({"run": name, "state": "done"})
    files.close()


def pairs(folder: Path) -> dict[str, str]:
    """Return stem → run, having checked that log and metadata tell of the same run."""
    found = {}
    for log in folder.glob("*.log"):
        metadata = json.loads((folder / f"{log.stem}.metadata.json").read_text())
        assert metadata == {"run": log.read_text(), "state": "done"}
        found[log.stem] = log.read_text()
    return found


def test_the_latest_run_has_the_plain_name(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        run(tmp_path, name)
    assert pairs(tmp_path) == {"train": "third", "train1": "first", "train2": "second"}


def test_a_run_that_was_overtaken_keeps_its_own_pair(tmp_path: Path) -> None:
    slow = StageFiles(tmp_path, "train", {"run": "slow", "state": "running"})
    run(tmp_path, "fast")
    slow.stream.write("slow")
    path = slow.write_metadata({"run": "slow", "state": "done"})
    slow.close()
    assert path.name == "train1.metadata.json"
    assert pairs(tmp_path) == {"train": "fast", "train1": "slow"}


def test_a_deleted_log_does_not_lend_its_name(tmp_path: Path) -> None:
    lost = StageFiles(tmp_path, "train", {"run": "lost"})
    lost.log_path.unlink()
    run(tmp_path, "next")
    lost.write_metadata({"run": "lost"})
    lost.close()
    assert pairs(tmp_path)["train"] == "next"


def test_a_number_without_a_log_does_not_hide_the_ones_after_it(tmp_path: Path) -> None:
    (tmp_path / "train1.out").write_text("of a stage that was killed before it had a log")
    slow = StageFiles(tmp_path, "train", {"run": "slow", "state": "running"})
    run(tmp_path, "fast")
    slow.stream.write("slow")
    assert slow.write_metadata({"run": "slow", "state": "done"}).name == "train2.metadata.json"
    slow.close()
    assert pairs(tmp_path) == {"train": "fast", "train2": "slow"}


def test_stages_whose_names_begin_alike_do_not_mix(tmp_path: Path) -> None:
    run(tmp_path, "a")
    other = StageFiles(tmp_path, "train_tokenizer", {"run": "b", "state": "done"})
    other.stream.write("b")
    other.close()
    run(tmp_path, "c")
    assert pairs(tmp_path) == {"train": "c", "train1": "a", "train_tokenizer": "b"}


def outputs(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in folder.glob("*.out")}


def launched(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a launcher's job does, after it has put the files of the run before aside."""
    output = folder / "train.out"
    output.write_text(name)
    monkeypatch.setenv("LAUNCHER_OUTPUT_INODE", str(output.stat().st_ino))


def test_the_raw_output_takes_the_number_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(tmp_path, "first", monkeypatch)
    run(tmp_path, "first")
    monkeypatch.delenv("LAUNCHER_OUTPUT_INODE")
    run(tmp_path, "second")  # run.py, without a launcher
    run(tmp_path, "third")
    launched(tmp_path, "fourth", monkeypatch)
    run(tmp_path, "fourth")
    numbered = {"train1": "first", "train2": "second", "train3": "third"}
    assert pairs(tmp_path) == {**numbered, "train": "fourth"}
    assert outputs(tmp_path) == {"train1": "first", "train": "fourth"}


def test_an_own_output_that_another_run_put_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train1.out").write_text("of a stage that never came to have a log")
    launched(tmp_path, "slow to start", monkeypatch)
    own_inode = (tmp_path / "train.out").stat().st_ino
    monkeypatch.delenv("LAUNCHER_OUTPUT_INODE")
    run(tmp_path, "in between")
    assert (tmp_path / "train2.out").read_text() == "slow to start"
    monkeypatch.setenv("LAUNCHER_OUTPUT_INODE", str(own_inode))
    run(tmp_path, "slow to start")
    assert pairs(tmp_path) == {"train": "slow to start", "train3": "in between"}
    assert set(outputs(tmp_path)) == {"train", "train1"}


def test_processes_that_rotate_at_once_lose_and_mix_nothing(hostile_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_stage_files as t\n"
        "for k in range(20): t.run(Path(sys.argv[1]), f'{sys.argv[2]}-{k}')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(hostile_path), str(number)])
        for number in range(4)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]
    found = pairs(hostile_path)
    assert sorted(found.values()) == sorted(f"{p}-{k}" for p in range(4) for k in range(20))
    assert set(found) == {"train", *(f"train{n}" for n in range(1, 80))}


def test_a_folder_that_cannot_be_written_is_told() -> None:
    # The kernel refuses new folders there to everybody, root included.
    with pytest.raises(StorageError, match=r"Cannot write /sys/kernel/logs"):
        StageFiles(Path("/sys/kernel/logs"), "train")
