"""What has become of each job, told from the launch records and nothing else."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from launcher.process import ProcessId
from launcher.records import LAUNCH, LaunchRecords

PENDING, RUNNING = "pending", "running"
DONE, FAILED, CANCELLED, SKIPPED = "done", "failed", "cancelled", "skipped"
ENDED = frozenset({DONE, FAILED, CANCELLED, SKIPPED})


@dataclass(frozen=True)
class JobStatus:
    """State of one stage's job. Times are seconds since the epoch.

    ``output_inode`` tells the raw output of this run from that of a later one.
    """

    stage: str
    state: str
    reason: str = ""
    job_id: str | None = None
    process: ProcessId | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    output_inode: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to this job."""
        return self.state in ENDED


def chain_status(records: LaunchRecords) -> list[JobStatus]:
    """Tell the state of every job of a launch, in order."""
    return [job_status(records, job["stage"]) for job in records.read_launch()["jobs"]]


def job_status(records: LaunchRecords, stage: str) -> JobStatus:
    """Tell the state of one stage's job.

    A job whose process is gone and that recorded no end was killed in a way that no handler sees
    (SIGKILL, power): it counts as cancelled where that was asked for, else as failed.
    """
    status = _told(records, stage)
    if status.has_ended:
        return status
    if status.job_id is None and cancel_requested(records, stage):
        # One that is submitted all the same sees the request when it begins.
        return replace(status, state=CANCELLED, reason="cancelled before it was submitted")
    if status.process is None or status.process.is_alive():
        return status
    # It may have recorded its end between our reading and our looking at the process.
    status = _told(records, stage)
    if status.has_ended:
        return status
    if cancel_requested(records, stage):
        return replace(status, state=CANCELLED, reason="cancelled")
    return replace(
        status,
        state=FAILED,
        reason="its process is gone without a result: killed by SIGKILL, or the machine stopped",
    )


def cancel_requested(records: LaunchRecords, stage: str) -> bool:
    """Tell whether somebody asked for this job to be cancelled."""
    return any(
        event["event"] == "cancel_requested" and stage in event["stages"]
        for event in records.events(LAUNCH)
    )


def exit_reason(exit_code: int) -> str:
    """Put an exit status as a shell has it into words: ``exit status 3``, ``killed by SIGKILL``."""
    if exit_code > 128:
        try:
            return f"killed by {signal.Signals(exit_code - 128).name}"
        except ValueError:
            pass
    return f"exit status {exit_code}"


def _told(records: LaunchRecords, stage: str) -> JobStatus:
    status = JobStatus(stage, PENDING)
    for event in records.events(LAUNCH):
        if event["event"] == "submitted" and event["stage"] == stage:
            process = event.get("process")
            status = replace(
                status,
                job_id=event["job_id"],
                process=ProcessId.from_record(process) if process else None,
            )
    for event in records.events(stage):
        if event["event"] == "waiting":
            status = replace(status, reason=f"waits for {event['upstream']}")
        elif event["event"] == "started":
            status = replace(
                status,
                state=RUNNING,
                reason="",
                started=event["time"],
                output_inode=event.get("output_inode"),
            )
        elif event["event"] == "ended":
            status = replace(
                status,
                state=event["state"],
                reason=event["reason"],
                ended=event["time"],
                exit_code=event["exit_code"],
            )
    return status
