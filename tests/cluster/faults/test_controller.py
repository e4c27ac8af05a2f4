"""slurmctld is restarted: meanwhile it is said what could not be asked, and the chain goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.table import SLURM_AWAY
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import Site, until
from tests.cluster.test_slurm_faults import ended
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def bring_back() -> None:
    script = REPOSITORY / "tests" / "cluster" / "rehearsal" / "up.py"
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)


@pytest.fixture
def stop_controller(slurm: Slurm) -> Iterator[Callable[[], None]]:
    """Return what stops this SLURM's controller; it is up again afterwards."""
    folder = Path(slurm.environment["REHEARSAL_DIR"]) / "run"
    conf = slurm.environment["SLURM_CONF"]
    (pid,) = (
        json.loads(path.read_text())["pid"]
        for path in folder.glob("*.daemon.json")
        if "slurmctld" in path.read_text() and conf in path.read_text()
    )

    def stop() -> None:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), 30, "the end of slurmctld")

    yield stop
    bring_back()


@pytest.mark.faults(SLURM_AWAY)
def test_a_controller_that_is_restarted(site: Site, stop_controller: Callable[[], None]) -> None:
    gate = site.recipe / "gate"
    launch = site.launch("--stages", "report", "score", environment={"TINY_GATE": str(gate)})
    launch.until_running("report")
    stop_controller()
    shown = site.run("status")
    assert re.search(r"^report +running", shown.stdout, re.MULTILINE), shown.stdout
    assert re.search(r"^score +pending .*does not answer", shown.stdout, re.MULTILINE)
    assert "does not answer" in shown.stdout
    assert launch.states() == ["running", "pending"]
    bring_back()
    gate.touch()
    assert ended(launch) == {"report": ("done", ""), "score": ("done", "")}
