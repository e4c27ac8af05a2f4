"""What a stage left: which files count, and whether they are still there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from launcher.errors import RecordError
from launcher.job import stage_outputs
from launcher.job.stage_outputs import (
    Outputs,
    list_outputs,
    lost_outputs,
    read_outputs,
    write_outputs,
)
from launcher.records import LaunchRecords


@pytest.fixture
def folder(hostile_path: Path) -> Path:
    folder = hostile_path / "exp"
    for name in (
        *("model.bin", "checkpoints/last.ckpt", "train.log", "train1.out", "train.metadata.json"),
        *(".train.lock", ".cache/x", "__pycache__/m.pyc", "infer/hyp.txt"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_logs_hidden_files_and_folders_of_other_stages_do_not_count(folder: Path) -> None:
    outputs = list_outputs(folder, [folder / "infer"])
    assert set(outputs.files or ()) == {"model.bin", "checkpoints/last.ckpt"}
    assert (outputs.num_files, outputs.num_bytes) == (2, len("model.bincheckpoints/last.ckpt"))
    assert Outputs.from_record(outputs.to_record()) == outputs


def test_a_file_that_was_there_before_does_not_count_and_one_with_an_old_time_does(
    folder: Path,
) -> None:
    opened = folder / "train.out"
    time.sleep(0.02)  # a kernel's clock for files goes in steps
    opened.touch()
    (folder / "unpacked.wav").touch()
    os.utime(folder / "unpacked.wav", (1, 1))
    outputs = list_outputs(folder, [], since_ns=opened.stat().st_ctime_ns)
    assert set(outputs.files or ()) == {"unpacked.wav"}


def test_what_is_gone_or_changed_is_named_and_what_is_new_is_not(folder: Path) -> None:
    outputs = list_outputs(folder, [])
    (folder / "new.bin").touch()
    assert lost_outputs(outputs) == []
    (folder / "model.bin").write_text("other")
    (folder / "infer" / "hyp.txt").unlink()
    assert lost_outputs(outputs) == [
        f"{folder}/infer/hyp.txt (gone)",
        f"{folder}/model.bin (changed)",
    ]


def test_a_file_may_be_as_a_later_stage_left_it(folder: Path) -> None:
    outputs = list_outputs(folder, [])
    (folder / "infer" / "hyp.txt").write_text("scored")
    later = list_outputs(folder / "infer", [])
    assert lost_outputs(outputs, [later]) == []
    (folder / "infer" / "hyp.txt").write_text("by hand")
    assert lost_outputs(outputs, [later]) == [f"{folder}/infer/hyp.txt (changed)"]


def test_of_too_many_files_there_is_their_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_outputs, "MAX_FILES", 2)
    outputs = list_outputs(folder, [])
    assert (outputs.files, outputs.num_files) == (None, 3)
    assert Outputs.from_record(outputs.to_record()) == outputs
    (folder / "model.bin").write_text("another")
    assert lost_outputs(outputs) == []
    (folder / "model.bin").unlink()
    assert lost_outputs(outputs) == [f"{folder} (2 files; there were 3)"]


def test_they_are_read_back_from_the_launch(folder: Path, tmp_path: Path) -> None:
    records = LaunchRecords.create(tmp_path / "one")
    assert read_outputs(records, "train") is None
    outputs = list_outputs(folder, [])
    write_outputs(records, "train", outputs)
    assert read_outputs(records, "train") == outputs
    written = tmp_path / "one" / "outputs" / "train.json"
    assert written.stat().st_mode & 0o077 == 0
    for damaged in ("", "{}", '{"files": 3}', "[]"):
        written.write_text(damaged)
        with pytest.raises(RecordError, match="cannot be read as the outputs of a stage"):
            read_outputs(records, "train")


def test_a_stage_that_leaves_nothing_has_no_folder(tmp_path: Path) -> None:
    outputs = list_outputs(tmp_path / "nowhere", [])
    assert outputs.num_files == 0
    assert lost_outputs(outputs) == []
