"""Which checkpoints are taken for whole, and which files are the folder's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from espnet3.systems.asr.checkpoints import CheckpointFolder


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Return a folder with checkpoints after steps 1 and 2, the first the better one."""
    folder = CheckpointFolder(tmp_path)
    folder.path.mkdir()
    for step in (1, 2):
        write(folder, step)
    return folder


def write(folder: CheckpointFolder, step: int) -> None:
    torch.save({"weight": torch.arange(1000)}, folder.file(step))
    folder.add(step, {"valid_WER": float(step)})


def steps(folder: CheckpointFolder) -> list[int]:
    return [entry.step for entry in folder.entries()]


def test_a_single_altered_bit_is_damage(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture
) -> None:
    newest = folder.newest_whole()
    assert newest is not None
    assert newest.step == 2
    content = bytearray(folder.file(2).read_bytes())
    content[content.index(torch.arange(1000).numpy().tobytes()) + 100] ^= 1
    folder.file(2).write_bytes(content)
    earlier = folder.newest_whole()
    assert earlier is not None
    assert earlier.step == 1
    assert "is damaged (in " in caplog.text
    assert str(folder.file(2)) in caplog.text


@pytest.mark.parametrize("index", ["", "{", "[]", '{"checkpoints": [{"step": "x"}]}', None])
def test_a_lost_index_and_a_copy_of_ones_own(folder: CheckpointFolder, index: str | None) -> None:
    copy = folder.path / "step_backup.ckpt"
    copy.write_bytes(folder.file(1).read_bytes())
    if index is None:
        (folder.path / "index.json").unlink()
    else:
        (folder.path / "index.json").write_text(index)
    assert steps(folder) == [1, 2]
    for step in (3, 4):
        write(folder, step)
    assert steps(folder) == [3, 4]
    assert sorted(path.name for path in folder.path.glob("*.ckpt")) == [
        "step00000003.ckpt",
        "step00000004.ckpt",
        "step_backup.ckpt",
    ]
