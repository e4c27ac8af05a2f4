"""A disk becomes full while a real training on SLURM writes a checkpoint."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.faults.table import DISK_FULL
from tests.cluster.faults.test_disk_full import disk
from tests.cluster.faults.trainings import Trainings, send
from tests.cluster.slurm_launches import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(DISK_FULL)]
# For what is logged; a checkpoint takes some megabytes.
ROOM_BYTES = 1 << 20


def fill_but(path: Path, room_bytes: int) -> None:
    free = os.statvfs(path)
    with (path / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room_bytes)


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("step*.ckpt"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_checkpoint_that_does_not_fit(trainings: Trainings, undisturbed: dict[str, Any]) -> None:
    """It fails in words, what was saved stays whole, and with room it goes on from there."""
    with disk(trainings.recipe / "exp" / "disk-full", "24m") as full:
        training = trainings.launch("disk-full")
        suspended = training.suspend()
        saved, records = checksums(full / "checkpoints"), training.records.events("train")
        assert saved
        fill_but(full, ROOM_BYTES)
        send(signal.SIGCONT, suspended)
        until(lambda: all(each.has_ended for each in training.status().values()), 60)
        assert [each.state for each in training.status().values()] == ["failed", "skipped"]
        shown = trainings.run("status", str(training.records.directory)).stdout
        assert re.search(
            r"Cannot write \S.*/step\d+\.ckpt: the disk is full; free some space", shown
        )
        assert checksums(full / "checkpoints") == saved
        assert not [each for each in (full / "checkpoints").iterdir() if "partial" in each.name]
        events, num_damaged = training.records.events_and_damage("train")
        assert (events[: len(records)], num_damaged) == (records, 0)

        (full / "filler").unlink()
        resumed = trainings.resume(training)
        until(lambda: all(each.has_ended for each in resumed.status().values()), 240)
        assert [each.state for each in resumed.status().values()] == ["done", "done"]
        assert "Going on from step" in (full / "train.log").read_text()
        assert resumed.figures() == undisturbed
