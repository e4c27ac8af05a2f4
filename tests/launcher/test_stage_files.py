"""The files of a stage run, as the launcher and the stage framework name them together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espnet3.utils import stage_files as framework
from launcher.stage_files import OUTPUT_INODE, close_metadata, locate_output, open_output


def launched(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a stage as a job does, up to where it would be killed; return its output's inode."""
    with open_output(folder / "train.out") as output:
        output.write(name.encode())
    inode = (folder / "train.out").stat().st_ino
    monkeypatch.setenv(OUTPUT_INODE, str(inode))
    run(folder, name)
    monkeypatch.delenv(OUTPUT_INODE)
    return inode


def run(folder: Path, name: str) -> None:
    start = "2026-11-22T14:00:00.000+00:00"
    metadata = {"run": name, "state": "running", "start_time": start}
    files = framework.StageFiles(folder, "train", metadata)
    files.stream.write(name)
    files.close()


def contents(folder: Path, suffix: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob(f"*{suffix}")}


def test_launched_and_direct_runs_number_their_files_alike(
    hostile_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_path / "new"
    launched(folder, "one", monkeypatch)
    run(folder, "two")
    run(folder, "three")
    launched(folder, "four", monkeypatch)
    launched(folder, "five", monkeypatch)
    with open_output(folder / "train.out") as output:
        output.write(b"six, killed before it had a log")
    assert contents(folder, ".log") == {
        "train1.log": "one",
        "train2.log": "two",
        "train3.log": "three",
        "train4.log": "four",
        "train5.log": "five",
    }
    assert contents(folder, ".out") == {
        "train1.out": "one",
        "train4.out": "four",
        "train5.out": "five",
        "train.out": "six, killed before it had a log",
    }
    for path in folder.glob("*.metadata.json"):
        log = path.with_name(path.name.removesuffix(".metadata.json") + ".log")
        assert json.loads(path.read_text())["run"] == log.read_text()


def test_the_lock_is_the_one_of_the_framework(tmp_path: Path) -> None:
    open_output(tmp_path / "train.out").close()
    framework.StageFiles(tmp_path, "train").close()
    assert [path.name for path in tmp_path.glob(".*")] == [".train.lock"]


def test_an_output_is_found_under_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = launched(tmp_path, "one", monkeypatch)
    assert locate_output(tmp_path / "train.out", inode) == tmp_path / "train.out"
    run(tmp_path, "two")
    assert locate_output(tmp_path / "train.out", inode) == tmp_path / "train1.out"
    (tmp_path / "train1.out").unlink()
    assert locate_output(tmp_path / "train.out", inode) is None


def test_metadata_of_a_killed_run_is_closed_whatever_its_name_is_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = launched(tmp_path, "killed", monkeypatch)
    run(tmp_path, "later")
    output = tmp_path / "train.out"
    close_metadata(output, inode, state="failed", exit_code=137, reason="killed by SIGKILL")
    closed = json.loads((tmp_path / "train1.metadata.json").read_text())
    assert (closed["run"], closed["state"]) == ("killed", "failed")
    message = "killed by SIGKILL; recorded by its job"
    assert closed["exit"] == {"status": 137, "signal": "SIGKILL", "message": message}
    assert closed["elapsed_s"] > 0
    assert closed["end_time"] > closed["start_time"]
    assert json.loads((tmp_path / "train.metadata.json").read_text())["state"] == "running"
    assert not list(tmp_path.glob(".*partial*"))


def test_metadata_that_says_how_the_stage_ended_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = launched(tmp_path, "one", monkeypatch)
    path = tmp_path / "train.metadata.json"
    for content in ('{"state": "done"}', '{"state": "runn', "[]"):
        path.write_text(content)
        close_metadata(
            tmp_path / "train.out", inode, state="failed", exit_code=1, reason="exit status 1"
        )
        assert path.read_text() == content
