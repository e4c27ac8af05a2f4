"""How a stage on SLURM ended: what its process says, what SLURM says, and what the other nodes say.

A stage on several nodes has one job process on each. That of rank 0 keeps the record; the others
leave word of their end for it. srun ends all of them when one fails (``--kill-on-bad-exit``).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from launcher.errors import LauncherError
from launcher.job.out_of_memory import BEGINNING, ended_by_scheduler
from launcher.job.outcome import Outcome
from launcher.printable import harmless
from launcher.results import read_metadata
from launcher.slurm import client as slurm_client
from launcher.status import (
    CANCELLED,
    DONE,
    FAILED,
    PENDING,
    cancel_requested,
    exit_reason,
    job_status,
)

if TYPE_CHECKING:
    from launcher.clusters.base import Allocation
    from launcher.job.stop_request import StopRequest
    from launcher.launch import Job
    from launcher.records import LaunchRecords

_RANK_ENDED = "rank_ended"
# Why a job was put back into the queue, as its event has it.
_TIME_LIMIT = "time_limit"
# So ends a stage that listens to the warning.
_SAVED_STATUS = 128 + signal.SIGUSR2
_POLL_S = 0.2


def settled(
    outcome: Outcome,
    job: Job,
    allocation: Allocation,
    records: LaunchRecords,
    stop: StopRequest,
) -> Outcome:
    """Return how a stage ended, given how its process on this node did."""
    if allocation.rank == 0 and outcome.state == DONE:
        outcome = _when_all_are_done(outcome, job.stage, allocation, records, stop)
    if outcome.state != DONE and not cancel_requested(records, job.stage):
        outcome = _as_slurm_says(outcome, job, allocation, records, stop)
    if allocation.rank > 0:
        records.append(
            job.stage,
            _RANK_ENDED,
            rank=allocation.rank,
            node=allocation.node,
            attempt=allocation.restart_count,
            state=outcome.state,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
        )
    return outcome


def _when_all_are_done(
    outcome: Outcome,
    stage: str,
    allocation: Allocation,
    records: LaunchRecords,
    stop: StopRequest,
) -> Outcome:
    """Wait for the other ranks; return the outcome of the first that was not done."""
    while not stop.requested:
        others = _others(stage, allocation, records)
        if undone := _undone(others):
            return undone
        if len(others) >= allocation.num_nodes - 1:
            return outcome
        time.sleep(_POLL_S)
    # srun ends the step: the process of another rank is gone.
    return replace(outcome, state=CANCELLED, reason="cancelled", exit_code=None)


def _as_slurm_says(
    outcome: Outcome,
    job: Job,
    allocation: Allocation,
    records: LaunchRecords,
    stop: StopRequest,
) -> Outcome:
    """Tell who ended a stage that was not done, where it was not the stage itself."""
    how = "" if outcome.exit_code is None else f" ({exit_reason(outcome.exit_code)})"
    job_id, timeout_s = os.environ["SLURM_JOB_ID"], (stop.kill_after_s or 0) / 2
    try:
        told = slurm_client.ending(job_id, allocation.restart_count, timeout_s=max(timeout_s, 2))
    except LauncherError as error:
        if outcome.state != CANCELLED:
            return outcome
        return replace(outcome, state=FAILED, reason=f"ended by a signal; {error}{how}")
    if told is not None and told.is_warning:
        if outcome.state != CANCELLED:  # it failed by itself in the time that it was given
            return outcome
        told = _put_back(told, job, allocation)
    if told is not None:
        if told.reason.startswith(BEGINNING) and outcome.reason.startswith(BEGINNING):
            return outcome  # which has the figures
        asked = job.settings.resources.mem_gb
        reason = ended_by_scheduler(f"{told.reason}{how}", job.stage, asked)
        return replace(outcome, state=told.state, reason=reason)
    if outcome.state != CANCELLED:
        return _again(outcome, job, allocation, records, stop)
    if undone := _undone(_others(job.stage, allocation, records)):
        return undone
    by_whom = "ended by a signal that neither the launcher nor SLURM's queue sent"
    if allocation.num_nodes > 1:
        by_whom = "ended by srun: the process of another node is gone"
    return replace(outcome, state=FAILED, reason=f"{by_whom}{how}")


def _again(
    outcome: Outcome,
    job: Job,
    allocation: Allocation,
    records: LaunchRecords,
    stop: StopRequest,
) -> Outcome:
    """Have a stage go on in another run that saved its work when its time was nearly over.

    One that did not, be it that it does not listen, would only begin anew each time.
    """
    settings = job.settings.cluster
    if not (stop.time_is_up and outcome.exit_code == _SAVED_STATUS and allocation.rank == 0):
        return outcome
    saved = _what_was_saved(job, records)
    before = sum(each.get("cause") == _TIME_LIMIT for each in records.events(job.stage))
    if not saved or not settings.requeue or before >= settings.max_num_timeout:
        return outcome
    try:
        slurm_client.requeue(os.environ["SLURM_JOB_ID"])
    except LauncherError as error:
        return replace(outcome, reason=f"{outcome.reason}; {error}")
    runs = f"run {before + 2} of at most {settings.max_num_timeout + 1}"
    reason = f"put back into the queue before its time limit, for {runs}: {saved}"
    return replace(outcome, state=PENDING, reason=reason, cause=_TIME_LIMIT)


def _what_was_saved(job: Job, records: LaunchRecords) -> str:
    """Return what a stage that was interrupted says it has saved; empty when it says nothing."""
    inode = job_status(records, job.stage).output_inode
    metadata = read_metadata(job.output.with_suffix(".metadata.json"), output_inode=inode)
    ending = metadata.get("exit")
    message = ending.get("message") if isinstance(ending, dict) else None
    return harmless(message) if isinstance(message, str) else ""


def _put_back(told: slurm_client.Ending, job: Job, allocation: Allocation) -> slurm_client.Ending:
    """Put a job back into the queue that ends before SLURM does that to it.

    SLURM warns the job by SIGTERM, and would put it back when its GraceTime is over; but a job that
    has ended by then, as it was asked to, it calls failed.
    """
    if not job.settings.cluster.requeue:
        return told
    try:
        if allocation.rank == 0:
            slurm_client.requeue(os.environ["SLURM_JOB_ID"])
    except LauncherError as error:
        return replace(told, reason=f"{told.reason}; {error}")
    return replace(told, state=PENDING, reason=f"{told.reason}, and put back into the queue")


def _others(stage: str, allocation: Allocation, records: LaunchRecords) -> list[dict[str, Any]]:
    """Return what the other ranks of this attempt left word of, in order."""
    return [
        event
        for event in records.events(stage)
        if event["event"] == _RANK_ENDED
        and event.get("attempt") == allocation.restart_count
        and event.get("rank") != allocation.rank
    ]


def _undone(others: Sequence[dict[str, Any]]) -> Outcome | None:
    for event in others:
        if event.get("state") != DONE:
            reason = f"rank {event['rank']} on {event.get('node')}: {event.get('reason')}"
            return Outcome(FAILED, reason, event.get("exit_code"))
    return None
