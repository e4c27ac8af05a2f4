"""slurmstepd, which stands over a step of a job, is killed: the stage is ended, and has failed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.faults.table import PROCESS_KILLED
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import Site, step_daemons, until
from tests.cluster.test_slurm_faults import ended, left_running

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.faults(PROCESS_KILLED)
@pytest.mark.parametrize("step", ["batch", "0"])
def test_a_killed_step_daemon_leaves_nothing(site: Site, slurm: Slurm, step: str) -> None:
    launch = site.launch("--stages", "wait", "score")
    launch.until_running("wait")
    daemons = step_daemons(slurm, launch.ids["wait"], step)
    assert daemons
    for pid in daemons:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not left_running(launch), 10, "the end of all that the stage had started")
    told = ended(launch)
    until(lambda: not launch.queued(), 60, "that its jobs leave the queue")
    assert told["wait"][0] == "failed", told
    assert told["score"][0] in ("skipped", "cancelled")
