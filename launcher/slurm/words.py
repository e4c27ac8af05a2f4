"""What SLURM calls the states of jobs, and why they wait or end: in the launcher's words."""

from __future__ import annotations

import pwd
import re

from launcher.clusters.base import JobState
from launcher.status import (
    BY_SCHEDULER,
    CANCELLED,
    DONE,
    FAILED,
    HELD,
    PENDING,
    RUNNING,
    SKIPPED,
    WAITS_FOR_UPSTREAM,
)

STATES = {
    "PENDING": PENDING,
    "CONFIGURING": PENDING,
    "REQUEUED": PENDING,
    "REQUEUE_HOLD": PENDING,
    "REQUEUE_FED": PENDING,
    "SPECIAL_EXIT": PENDING,
    "RESV_DEL_HOLD": PENDING,
    "RUNNING": RUNNING,
    "COMPLETING": RUNNING,
    "SUSPENDED": RUNNING,
    "STOPPED": RUNNING,
    "SIGNALING": RUNNING,
    "STAGE_OUT": RUNNING,
    "RESIZING": RUNNING,
    "COMPLETED": DONE,
    "CANCELLED": CANCELLED,
    "REVOKED": CANCELLED,
    "FAILED": FAILED,
    "TIMEOUT": FAILED,
    "NODE_FAIL": FAILED,
    "OUT_OF_MEMORY": FAILED,
    "PREEMPTED": FAILED,
    "BOOT_FAIL": FAILED,
    "DEADLINE": FAILED,
}
OUT_OF_TIME = "out of time: SLURM ended it at its time limit"
IN_WORDS = {
    "TIMEOUT": OUT_OF_TIME,
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory: SLURM ended it",
    "PREEMPTED": "preempted by another job",
    "CANCELLED": "cancelled through SLURM",
}
# SLURM's reasons for ending a job that nobody cancelled.
ENDED_BY = {
    "JobLaunchFailure": "the script of its job was killed",
    "NonZeroExitCode": "the script of its job failed",
}
_NEVER = "DependencyNeverSatisfied"
_WAITING_IN_WORDS = {
    "None": "in the queue",
    "Priority": "in the queue, behind others",
    "Resources": "in the queue, for nodes that become free",
    "Dependency": WAITS_FOR_UPSTREAM,
    "BeginTime": "in the queue until its time to begin",
}
# SLURM's reasons for which a job waits until somebody does something.
_FOR_EVER = re.compile(
    r"JobHeld|JobHoldMaxRequeue|held$|BadConstraints|Invalid(Account|QOS)|(Account|QOS)NotAllowed"
    r"|Partition(Down|Inactive|TimeLimit|NodeLimit)|Max\w+PerJob"
)


def job_states(text: str) -> dict[str, JobState]:
    """Read lines of ``job|state`` or ``job|state|reason``, as squeue and sacct print them."""
    lines = [line.split("|") for line in text.splitlines()]
    return {
        fields[0]: _state(fields[1], fields[2] if len(fields) > 2 else "")
        for fields in lines
        if len(fields) >= 2
    }


def _state(told: str, why: str) -> JobState:
    name = told.split()[0].rstrip("+")
    state = STATES.get(name, RUNNING)
    if state == CANCELLED and why == _NEVER:
        return JobState(SKIPPED, "")
    if state == PENDING:
        return JobState(state, _why_it_waits(why))
    if state == RUNNING:
        return JobState(state, "" if name in ("RUNNING", "COMPLETING") else name.lower())
    if state == CANCELLED and not why and told == name:
        return JobState(state, BY_SCHEDULER)  # else sacct says: CANCELLED by 1000
    by = re.search(r" by (\d+)$", told)
    return JobState(state, in_words(name) + (f" by {_user(int(by[1]))}" if by else ""))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def in_words(name: str) -> str:
    """Say why SLURM ended a job, from what it calls the job's state."""
    return IN_WORDS.get(name, f"SLURM says {name}")


def _why_it_waits(why: str) -> str:
    if why == "JobHeldUser":
        return HELD
    if _FOR_EVER.search(why):
        return f"will not start by itself: SLURM says {why}"
    return _WAITING_IN_WORDS.get(why, f"in the queue: SLURM says {why}")
