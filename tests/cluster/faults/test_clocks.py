"""Clocks that differ from node to node: no state and no file of a run is told by them."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from launcher.records import LAUNCH, LaunchRecords
from launcher.view import LaunchView
from tests.cluster.faults.table import CLOCKS
from tests.cluster.slurm_launches import Site, until
from tests.conftest import lacks

pytestmark = pytest.mark.faults(CLOCKS)
HOUR_S = 3600.0
# Of each Python there. libfaketime 0.9.10 refuses to sleep by a clock that it leaves alone.
SLEEP = """\
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


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
    # A minute and not an hour, whatever the clocks say.
    assert 0 <= told["queue_s"] < 60
    if state == "running" or ahead_s > 0:
        assert 0 <= told["run_s"] < 60
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


@pytest.mark.cluster
@pytest.mark.slow
def test_nodes_whose_clocks_are_hours_off(site: Site, tmp_path: Path) -> None:
    """The clocks of the jobs' processes, that is: SLURM itself needs clocks that agree."""
    begun_s, gate = time.monotonic(), tmp_path / "gate"
    clocks = {"report": -3, "train": 5, "score": -4}
    (tmp_path / "sitecustomize.py").write_text(SLEEP)
    site.python_path = (str(tmp_path), *site.python_path)
    setups = [f"stages.{stage}.setup=['{clock(hours)}']" for stage, hours in clocks.items()]
    launch = site.launch("--stages", *clocks, *setups, environment={"TINY_GATE": str(gate)})

    def told() -> list[dict[str, Any]]:
        stages: list[dict[str, Any]] = json.loads(site.run("status", "--json").stdout)["stages"]
        spans = [stage[name] for stage in stages for name in ("queue_s", "run_s")]
        assert all(0 <= span < time.monotonic() - begun_s for span in spans if span is not None)
        return stages

    launch.until_running("report")
    stages = told()
    assert [stage["state"] for stage in stages] == ["running", "pending", "pending"]
    assert stages[0]["run_s"] is not None
    gate.touch()
    until(lambda: all(stage["state"] == "done" for stage in told()), 60, "the end")
    order = [launch.file(stage, ".out").stat().st_ctime for stage in clocks]
    assert order == sorted(order)
    for stage, hours in clocks.items():
        began = datetime.fromisoformat(launch.metadata(stage)["job"]["start_time"]).timestamp()
        assert began - launch.file(stage, ".out").stat().st_ctime == pytest.approx(
            hours * HOUR_S, abs=60
        )
    again = site.run("resume")
    assert "Nothing to do" in again.stdout, again.stdout + again.stderr


def clock(hours: int) -> str:
    """Return the line by which a job's processes, and no file, have a clock of their own."""
    shown = ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"]
    try:
        library = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        lacks("there is no faketime here; make cluster-up installs it")
    settings = "FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1"
    library = library.replace("$", r"\$")  # $LIB is the loader's to replace
    return f"export LD_PRELOAD={library} FAKETIME={hours:+d}h {settings}"
