"""A run whose node was lost, and lives, gives way to the one after it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from launcher.job.stop_request import StopRequest
from launcher.records import LaunchRecords
from launcher.slurm import succession
from launcher.slurm.succession import Succession


@pytest.fixture
def records(hostile_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchRecords:
    monkeypatch.setattr(succession, "_POLL_S", 0.01)
    return LaunchRecords.create(hostile_path / "launch")


def test_the_earlier_run_is_stopped_when_a_later_one_begins(records: LaunchRecords) -> None:
    stop = StopRequest()
    with Succession(records, "train", 0, stop):
        records.append("train", "started", attempt=0)
        time.sleep(0.1)
        assert not stop.requested
        records.append("train", "started", attempt=1)
        deadline = time.monotonic() + 10
        while not stop.requested:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_later_run_waits_for_the_last_word_of_the_earlier(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.append("train", "started", attempt=0)
    monkeypatch.setattr(succession, "_PATIENCE_S", 0.2)
    later = Succession(records, "train", 1, StopRequest())
    begun = time.monotonic()
    later.wait_for_earlier()  # of a node that is really gone no word comes
    assert time.monotonic() - begun >= 0.2
    monkeypatch.setattr(succession, "_PATIENCE_S", 60.0)
    records.append("train", "requeued", reason="put back", attempt=0)
    begun = time.monotonic()
    later.wait_for_earlier()
    assert time.monotonic() - begun < 30


def test_a_first_run_waits_for_nobody(records: LaunchRecords) -> None:
    begun = time.monotonic()
    Succession(records, "train", 0, StopRequest()).wait_for_earlier()
    assert time.monotonic() - begun < 5
