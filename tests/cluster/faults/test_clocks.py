"""Clocks that differ from node to node: no state and no file of a run is told by them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from launcher.records import LAUNCH, LaunchRecords
from launcher.view import LaunchView
from tests.cluster.faults.table import CLOCKS

pytestmark = pytest.mark.faults(CLOCKS)
HOUR_S = 3600.0


@pytest.fixture
def records(hostile_path: Path) -> LaunchRecords:
    made = LaunchRecords.create(hostile_path / "launches" / "one")
    files = {
        name: str(hostile_path / f"fit{suffix}")
        for name, suffix in (("output", ".out"), ("log", ".log"), ("metadata", ".metadata.json"))
    }
    made.write_launch({"jobs": [{"stage": "fit", "after": None, **files}]})
    return made


@pytest.mark.parametrize("ahead_s", [-HOUR_S, HOUR_S])
@pytest.mark.parametrize("state", ["running", "done"])
def test_a_node_an_hour_off(
    records: LaunchRecords,
    hostile_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ahead_s: float,
    state: str,
) -> None:
    """The stage's files have the file server's time, its events the node's."""
    records.append(LAUNCH, "submitted", stage="fit", job_id="7")
    output = hostile_path / "fit.out"
    output.write_text("a line\n")
    here = time.time
    with monkeypatch.context() as on_node:
        on_node.setattr(time, "time", lambda: here() + ahead_s)
        inode = output.stat().st_ino
        records.append("fit", "started", host="n1", output_inode=inode, attempt=0)
    if state == "done":  # rank 0 was put on another node, or its clock was set right
        records.append("fit", "ended", state="done", reason="", exit_code=0, attempt=0)
    (hostile_path / "fit.log").write_text("a record\n")
    metadata = {"kept": True, "results": {"steps": 3}, "job": {"output_inode": inode}}
    (hostile_path / "fit.metadata.json").write_text(json.dumps(metadata))
    (told,) = LaunchView.of(records).to_record()["stages"]
    assert told["state"] == state
    assert told["kept"] is (state == "done")
    assert told["results"] == ({"steps": 3} if state == "done" else {})
    assert told["run_s"] >= 0
    assert told["queue_s"] >= 0
    assert LaunchView.of(records).stages[0].row.shown_log.endswith("fit.log")


def test_an_attempt_is_told_by_its_number_and_not_by_its_time(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = time.time
    records.append("fit", "started", host="n1", output_inode=1, attempt=0)
    with monkeypatch.context() as on_node:
        on_node.setattr(time, "time", lambda: here() - HOUR_S)
        records.append("fit", "started", host="n2", output_inode=2, attempt=1)
    # The first node is back, and its job says its last word, later by any clock.
    records.append("fit", "ended", state="failed", reason="lost", exit_code=1, attempt=0)
    (told,) = LaunchView.of(records).to_record()["stages"]
    assert (told["state"], told["attempt"], told["node"]) == ("running", 1, "n2")
