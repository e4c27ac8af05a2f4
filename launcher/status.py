"""What has become of each job, told from the launch records, and by a scheduler what they lack."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.printable import harmless
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords

if TYPE_CHECKING:
    from launcher.clusters.base import Cluster, JobState

PENDING, RUNNING = "pending", "running"
DONE, FAILED, CANCELLED, SKIPPED = "done", "failed", "cancelled", "skipped"
# Said by a scheduler of a job that it no longer knows: it ended, and nobody can tell how.
GONE = "gone"
# Said in place of a scheduler that is not the one that a job was given to.
UNKNOWN = "unknown"
# Said by a scheduler of a job that waits for another; it knows that one by its id alone.
WAITS_FOR_UPSTREAM = "waits for the stage before"
# Said by a scheduler of a job that does not start before somebody lets it.
HELD = "held"
# On record once a scheduler that holds the first job has let it start.
LET_START = "let_start"
# Said by a scheduler of a job that nobody cancelled: its upstream failed, as a rule.
BY_SCHEDULER = "cancelled by the scheduler itself"
_NEVER_STARTED = "its job left the queue before it started; the scheduler has forgotten why"
# How the last line begins that Python says of an exception, in a job process's own output.
_ERROR = re.compile(r"launcher\.errors\.\w+: |(?=[\w.]*(?:Error|Exception): )")
ENDED = frozenset({DONE, FAILED, CANCELLED, SKIPPED})


@dataclass(frozen=True)
class JobStatus:
    """State of one stage's job. Times are seconds since the epoch.

    ``output_inode`` tells the raw output of this run from that of a later one. ``process`` is what
    the cluster started, and ``job_process`` what runs the stage, where they are on a host that can
    be asked; the one may outlive the other. ``carried_from`` is the launch directory of the earlier
    launch that ran the stage, where this one goes on from there.
    """

    stage: str
    state: str
    reason: str = ""
    job_id: str | None = None
    process: ProcessId | None = None
    job_process: ProcessId | None = None
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    output_inode: int | None = None
    carried_from: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to this job."""
        return self.state in ENDED

    @property
    def is_held(self) -> bool:
        """Whether a process is left that may still record an end."""
        processes = [each for each in (self.process, self.job_process) if each is not None]
        return not processes or any(each.is_alive() for each in processes)


def chain_status(records: LaunchRecords, cluster: Cluster | None = None) -> list[JobStatus]:
    """Tell the state of every job of a launch, in order.

    Args:
        records: of the launch.
        cluster: asked for the jobs of which the records do not tell an end.
    """
    record = records.read_launch()
    jobs = record["jobs"]
    chain = [job_status(records, job["stage"]) for job in jobs]
    if _is_cut_off(record, records):
        chain = [_as_left(status) for status in chain]
    chain = _without_upstream(chain, jobs, records)
    is_open = [status for status in chain if not status.has_ended and status.process is None]
    ids = [status.job_id for status in is_open if status.job_id is not None]
    if cluster is None or not ids:
        return chain
    states = cluster.states(ids)
    if _is_unreleased(record, records):
        states = {job_id: _as_unreleased(told) for job_id, told in states.items()}
    # A job may have recorded its end between our reading and our asking.
    chain = [_newer(status, job_status(records, status.stage)) for status in chain]
    chain = [
        _as_scheduled(status, states, records, job.get("after") or _behind(record))
        for status, job in zip(chain, jobs, strict=True)
    ]
    return _without_upstream(chain, jobs, records)


def _newer(status: JobStatus, reread: JobStatus) -> JobStatus:
    return status if status.has_ended or status.state == reread.state else reread


def _is_cut_off(record: Mapping[str, Any], records: LaunchRecords) -> bool:
    """Tell whether the launcher ended, however it did, before it let the chain start."""
    return _launcher_is_gone(record) and not _is_on_record("released", records)


def _is_unreleased(record: Mapping[str, Any], records: LaunchRecords) -> bool:
    """Tell whether the launcher may have ended before the scheduler heard that the chain may start.

    A job that it holds was held by nobody else then.
    """
    is_released = _is_on_record("released", records)
    return is_released and not _is_on_record(LET_START, records) and _launcher_is_gone(record)


def _launcher_is_gone(record: Mapping[str, Any]) -> bool:
    launcher = record.get("launcher")
    return launcher is not None and not ProcessId.from_record(launcher).is_alive()


def _is_on_record(event: str, records: LaunchRecords) -> bool:
    return any(each["event"] == event for each in records.events(LAUNCH))


def _as_unreleased(told: JobState) -> JobState:
    reason = "the launcher ended before it let the chain start; held"
    return replace(told, reason=reason) if told.reason == HELD else told


def _as_left(status: JobStatus) -> JobStatus:
    """Tell the state of a job whose launcher ended before it let the chain start."""
    if status.state != PENDING or status.process is not None:
        return status
    if status.job_id is None:
        reason = "the launcher ended before it was submitted"
        return replace(status, state=CANCELLED, reason=reason)
    return replace(status, reason="the launcher ended before the whole chain was submitted")


def _behind(record: Mapping[str, Any]) -> str | None:
    """Name the launches that a launch is queued behind."""
    names = [Path(str(each)).name for each in record.get("queued_behind") or ()]
    return f"launch {', '.join(names)}" if names else None


def _as_scheduled(
    status: JobStatus,
    states: Mapping[str, JobState],
    records: LaunchRecords,
    after: str | None,
) -> JobStatus:
    if status.has_ended or status.process is not None or status.job_id is None:
        return status
    told = states.get(status.job_id)
    if told is None:
        return replace(status, reason=status.reason or "the scheduler does not answer")
    if told.state == UNKNOWN:
        return replace(status, reason=told.reason)
    if told.state == DONE:  # whether the stage is done, its record tells, which is to come
        return replace(status, reason="its job has completed; its record is not to be seen yet")
    if told.state in (CANCELLED, GONE) and cancel_requested(records, status.stage):
        return replace(status, state=CANCELLED, reason="cancelled")
    if told.state == GONE:
        return _vanished(status)
    if told.state == PENDING:
        waits = told.reason
        if after is not None and waits == WAITS_FOR_UPSTREAM:
            waits = f"waits for {after}"
        reasons = [status.reason if status.state == PENDING else "put back", waits]
        return replace(status, state=PENDING, reason="; ".join(filter(None, reasons)))
    reason = told.reason
    if status.state == PENDING and told.state == RUNNING:
        reason = reason or "starting"
    elif status.state == PENDING and told.state == FAILED:  # the launcher's code never ran
        reason = f"{reason}, before the stage was started"
    return replace(status, state=told.state, reason=reason)


def _vanished(status: JobStatus) -> JobStatus:
    """Settle a job that left no end on record, and that its scheduler has forgotten."""
    if status.state == RUNNING:
        reason = "its job was killed without a result; the scheduler has forgotten why"
        return replace(status, state=FAILED, reason=reason)
    return replace(status, state=CANCELLED, reason=_NEVER_STARTED)


def _without_upstream(
    chain: Sequence[JobStatus],
    jobs: Sequence[Mapping[str, str | None]],
    records: LaunchRecords,
) -> list[JobStatus]:
    """Call those skipped whose upstream has ended otherwise than done, where nobody records it.

    A scheduler cancels such a job before it can record anything itself; and one that only waited
    may have gone down with its upstream, of which that was the failure.
    """
    settled: dict[str, JobStatus] = {}
    for status, job in zip(chain, jobs, strict=True):
        upstream = settled.get(job.get("after") or "")
        is_off = upstream is not None and upstream.has_ended and upstream.state != DONE
        is_left = status.state == PENDING and status.process is None and status.job_id is not None
        only_waited = status.started is None and status.ended is None
        is_left |= status.state == FAILED and status.process is not None and only_waited
        is_left |= status.state == SKIPPED and not status.reason  # so says a scheduler
        is_left |= status.state == CANCELLED and status.reason in (_NEVER_STARTED, BY_SCHEDULER)
        if upstream is not None and is_off and is_left:
            if cancel_requested(records, status.stage):
                status = replace(status, state=CANCELLED, reason="cancelled")
            else:
                status = replace(status, state=SKIPPED, reason=why_skipped(upstream))
        elif status.state == SKIPPED and not status.reason:
            status = replace(status, reason="the scheduler says that the job before it failed")
        settled[status.stage] = status
    return list(settled.values())


def why_skipped(upstream: JobStatus) -> str:
    """Say why a stage is skipped; down a chain, name the stage that began it."""
    if upstream.state == SKIPPED:
        return upstream.reason
    was = "failed" if upstream.state == FAILED else f"was {upstream.state}"
    return f"{upstream.stage} {was}"


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
    if status.is_held:
        return status
    return lost(records, stage)


def lost(records: LaunchRecords, stage: str) -> JobStatus:
    """Tell how a job ended of which no process is left that could still record it."""
    # It may have recorded its end between our reading and our looking at the process.
    status = _told(records, stage)
    if status.has_ended:
        return status
    if cancel_requested(records, stage):
        return replace(status, state=CANCELLED, reason="cancelled")
    how = _last_words(records, status) or "killed by SIGKILL, or the machine stopped"
    return replace(status, state=FAILED, reason=f"its process is gone without a result: {how}")


def _last_words(records: LaunchRecords, status: JobStatus) -> str:
    """Return the error that a job process ended with; one that was killed says nothing."""
    try:
        log = records.directory / "submitit" / f"{status.job_id}_0_log.out"
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found = _ERROR.match(lines[-1]) if lines else None
    return harmless(lines[-1][found.end() :]) if found else ""


def cancel_requested(records: LaunchRecords, stage: str) -> bool:
    """Tell whether somebody asked for this job to be cancelled."""
    return stage in records.cancelled_stages()


def exit_reason(exit_code: int) -> str:
    """Put an exit status as a shell has it into words: ``exit status 3``, ``killed by SIGKILL``."""
    signal_name = exit_signal(exit_code)
    return f"killed by {signal_name}" if signal_name else f"exit status {exit_code}"


def exit_signal(exit_code: int | None) -> str | None:
    """Return the name of the signal that an exit status as a shell has it tells; None for none."""
    try:
        return None if exit_code is None else signal.Signals(exit_code - 128).name
    except ValueError:
        return None


def _told(records: LaunchRecords, stage: str) -> JobStatus:
    status = JobStatus(stage, PENDING)
    submission = records.submissions().get(stage)
    if submission is not None:
        process = submission.get("process")
        status = replace(
            status,
            job_id=submission["job_id"],
            submitted=submission["time"],
            process=ProcessId.from_record(process) if process else None,
        )
    attempt = 0
    for event in records.events(stage):
        # Of a node that was lost, and is back, the job may say its last word after the next began.
        if event.get("attempt", attempt) < attempt:
            continue
        attempt = event.get("attempt", attempt)
        if event["event"] == "waiting":
            status = replace(status, reason=f"waits for {event['upstream']}")
            if event.get("process") is not None:
                status = replace(status, job_process=ProcessId.from_record(event["process"]))
        elif event["event"] == "started":
            status = replace(
                status,
                state=RUNNING,
                reason="",
                started=event["time"],
                output_inode=event.get("output_inode"),
                ended=None,
                exit_code=None,
            )
        elif event["event"] == "carried":
            status = replace(
                status,
                state=event["state"],
                reason=event["reason"],
                started=event.get("started"),
                ended=event.get("ended"),
                exit_code=event["exit_code"],
                output_inode=event.get("output_inode"),
                carried_from=event["launch"],
            )
        elif event["event"] == "requeued":
            status = replace(status, state=PENDING, reason=event["reason"], started=None)
        elif event["event"] == "ended":
            status = replace(
                status,
                state=event["state"],
                reason=event["reason"],
                ended=event["time"],
                exit_code=event["exit_code"],
            )
    return status
