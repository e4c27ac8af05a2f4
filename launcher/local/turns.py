"""Whose turn it is on this machine: after the submission, launches before, and the job before."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import RecordError
from launcher.job import lost_job
from launcher.job.outcome import Outcome
from launcher.job.stop_request import StopRequest
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import CANCELLED, DONE, SKIPPED, chain_status, job_status, why_skipped

if TYPE_CHECKING:
    from launcher.launch import Job

# Between two looks at a launch that this one is queued behind.
_OTHERS_POLL_S = 0.25


def wait_for_turn(
    job: Job, records: LaunchRecords, stop: StopRequest, poll_s: float
) -> Outcome | None:
    """Wait until the whole launch is submitted and the job before is done.

    Returns:
        Why the job is not to run; None when it is, and when it was asked to stop.
    """
    submitter = ProcessId.from_record(records.read_launch()["launcher"])
    own = ProcessId.of(os.getpid()).to_record()
    upstream = job.after or "the end of the submission"
    records.append(job.stage, "waiting", upstream=upstream, process=own)
    while not stop.requested and not _is_released(records):
        if not submitter.is_alive() and not _is_released(records):
            return Outcome(CANCELLED, "the launcher ended before the whole chain was submitted")
        time.sleep(poll_s)
    wait_for_others(job, records, stop, poll_s)
    while job.after is not None and not stop.requested:
        status = job_status(records, job.after)
        if status.state == DONE:
            return None
        if status.has_ended:
            lost_job.close(records, status)
            return Outcome(SKIPPED, why_skipped(status))
        time.sleep(poll_s)
    return None


def wait_for_others(job: Job, records: LaunchRecords, stop: StopRequest, poll_s: float) -> None:
    """Wait until the launches have ended that this one is queued behind."""
    for directory in job.behind:
        waits = False
        while not stop.requested and _has_open_stages(directory):
            if not waits:
                records.append(job.stage, "waiting", upstream=f"launch {directory.name}")
                waits = True
            time.sleep(max(poll_s, _OTHERS_POLL_S))


def _has_open_stages(directory: Path) -> bool:
    try:
        return not all(each.has_ended for each in chain_status(LaunchRecords(directory)))
    except RecordError:  # cleaned away
        return (directory / "launch.json").exists()


def _is_released(records: LaunchRecords) -> bool:
    return any(event["event"] == "released" for event in records.events(LAUNCH))
