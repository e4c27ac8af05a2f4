"""Processes of a job on a real SLURM that are killed behind its back: said so, and nothing left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.faults.table import PROCESS_KILLED
from tests.cluster.slurm_launches import Site, until
from tests.cluster.test_slurm_faults import ended, left_running

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.faults(PROCESS_KILLED)
def test_a_killed_script_is_no_cancellation(site: Site) -> None:
    launch = site.launch("--stages", "wait", "score")
    launch.until_running("wait")
    job_id = launch.ids["wait"]
    (script,) = (
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if f"/job{job_id.zfill(5)}/slurm_script".encode() in (entry / "cmdline").read_bytes()
        and b"bash" in (entry / "cmdline").read_bytes().split(b"\0")[0]
    )
    os.kill(script, signal.SIGKILL)
    state, reason = ended(launch)["wait"]
    assert state == "failed"
    assert reason.startswith("the script of its job was killed")


@pytest.mark.faults(PROCESS_KILLED)
def test_job_process_and_guard_killed_together_leave_nothing(site: Site) -> None:
    launch = site.launch("--stages", "wait", "score")
    launch.until_running("wait")
    (started,) = (each for each in launch.records.events("wait") if each["event"] == "started")
    job = started["pid"]
    (guard,) = map(int, Path(f"/proc/{job}/task/{job}/children").read_text().split())
    os.kill(job, signal.SIGSTOP)  # neither sees the other go
    for pid in (guard, job):
        os.kill(pid, signal.SIGKILL)
    assert ended(launch)["wait"][0] == "failed"
    until(lambda: not left_running(launch), 20, "the end of what the stage had detached")
