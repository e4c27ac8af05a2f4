"""SLURM's own commands: sbatch, scontrol, scancel, squeue, sacct. Each call is bounded in time."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.clusters.base import JobState
from launcher.errors import LauncherError
from launcher.slurm.calls import QUERY_TIMEOUT_S, answer, ask, run
from launcher.slurm.words import ENDED_BY, IN_WORDS, OUT_OF_TIME, STATES, in_words, job_states
from launcher.status import CANCELLED, FAILED, GONE, PENDING, RUNNING

# A job that is being stopped may have no more than this to tell why.
_LAST_QUERY_TIMEOUT_S = 2.0
# What the script of a job whose processes were killed has for its last line.
_LAST_LINE_S = 3.0


@dataclass(frozen=True)
class Queued:
    """A job as the queue has it: SLURM's name of its state, and its working directory."""

    state: str
    folder: str


@dataclass(frozen=True)
class Ending:
    """Why SLURM ends a job, as the job itself can learn while it is being ended.

    ``is_warning``: it does not yet, but will in the partition's GraceTime, to give the nodes to
    another job.
    """

    state: str
    reason: str
    is_warning: bool = False


def sbatch(options: Sequence[str], script: str) -> str:
    """Submit a script and return what sbatch printed.

    Raises:
        LauncherError: it was refused; the message is sbatch's.
    """
    return run(["sbatch", *options], script)


def cluster_name() -> str:
    """Return the name of the SLURM that answers here.

    Raises:
        LauncherError: none does, or it does not tell.
    """
    shown = run(["scontrol", "show", "config"], timeout_s=QUERY_TIMEOUT_S)
    found = re.search(r"^ClusterName\s*=\s*(\S+)", shown, re.MULTILINE)
    if found is None:
        raise LauncherError("scontrol show config names no ClusterName")
    return found[1]


def release(job_id: str) -> None:
    """Release a held job."""
    run(["scontrol", "release", job_id])


def cancel(job_id: str, *, force: bool) -> None:
    """Cancel a job; one that is gone already is no error.

    Args:
        job_id: of the job.
        force: kill the processes that srun started at once. Cancelling a job, even by SIGKILL, has
            SLURM ask them by SIGTERM first. The script's last line then closes the record.
    """
    if force and ask(["scancel", "--signal=KILL", f"{job_id}.0"]) is not None:
        deadline = time.monotonic() + _LAST_LINE_S
        while time.monotonic() < deadline and ask(["squeue", "--noheader", f"--jobs={job_id}"]):
            time.sleep(0.1)
    ask(["scancel", job_id])


def ask_to_stop(job_id: str, signal_name: str) -> None:
    """Send the processes of a job's step a signal that only those take that wait for it."""
    ask(["scancel", f"--signal={signal_name}", f"{job_id}.0"])


def queued(job_id: str) -> Queued | None:
    """Return what the queue has of a job; None when it knows no such job, or does not answer."""
    show = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%Z"]
    state, bar, folder = (ask(show) or "").removesuffix("\n").partition("|")
    return Queued(state, folder) if bar else None


def time_left_s(job_id: str) -> float | None:
    """Return the seconds before a job's time limit; None when there is none, or nobody tells."""
    show = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]
    told = (ask(show, _LAST_QUERY_TIMEOUT_S) or "").strip()
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", told)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def requeue(job_id: str) -> None:
    """Put a running job back into the queue, where it keeps its id.

    Raises:
        LauncherError: SLURM does not do it.
    """
    run(["scontrol", "requeue", job_id])


def jobs_in(folder: Path) -> list[str]:
    """Return the jobs in the queue that have this working directory."""
    lines = (ask(["squeue", "--noheader", "--format=%i|%Z"]) or "").splitlines()
    pairs = (line.partition("|") for line in lines)
    return [job_id for job_id, _, where in pairs if where == str(folder)]


def kill_wait_s() -> float | None:
    """Return the seconds between SIGTERM and SIGKILL on this cluster; None if it does not say."""
    shown = ask(["scontrol", "show", "config"])
    found = re.search(r"^KillWait\s*=\s*(\d+)", shown or "", re.MULTILINE)
    return None if found is None else float(found[1])


def ending(
    job_id: str, restart_count: int, *, timeout_s: float = _LAST_QUERY_TIMEOUT_S
) -> Ending | None:
    """Ask why this job is being ended; None when it is not.

    Until its last process is gone, all that SLURM calls it is COMPLETING.

    Args:
        job_id: of the job that asks.
        restart_count: how often it had been put back into the queue when it started.
        timeout_s: seconds that there are to ask.

    Raises:
        LauncherError: SLURM does not answer.
    """
    show = ["scontrol", "--oneliner", "show", "job", job_id]
    done = answer(show, timeout_s)
    if done is None or done.returncode != 0:
        raise LauncherError("SLURM does not answer")
    wanted = r"\b(JobState|Reason|Restarts|PreemptTime|StartTime)=(\S+)"
    fields = dict(re.findall(wanted, done.stdout))
    state, reason = fields.get("JobState", "RUNNING"), fields.get("Reason", "")
    if int(fields.get("Restarts", 0)) > restart_count or STATES.get(state) == PENDING:
        return Ending(PENDING, "put back into the queue by SLURM")
    preempted, started = fields.get("PreemptTime", ""), fields.get("StartTime", "")
    # It may be None, or of an earlier run.
    if state == "RUNNING" and preempted[:1].isdigit() and preempted >= started:
        return Ending(FAILED, in_words("PREEMPTED"), is_warning=True)
    if state == "TIMEOUT" or reason == "TimeLimit":
        return Ending(FAILED, OUT_OF_TIME)
    if state == "COMPLETING" and reason in ("", "None"):
        return Ending(CANCELLED, IN_WORDS["CANCELLED"])
    if state == "COMPLETING":
        return Ending(FAILED, ENDED_BY.get(reason, f"SLURM ended it: {reason}"))
    told = STATES.get(state, RUNNING)
    return Ending(told, in_words(state)) if told in (CANCELLED, FAILED) else None


def states(job_ids: Sequence[str]) -> dict[str, JobState]:
    """Ask for the states of jobs, in one call of squeue, and one of sacct for the rest.

    A job that neither knows any more is ``GONE``; one is left out when SLURM does not answer.
    """
    queue = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(job_ids)}"]
    told = _told([*queue, "--format=%i|%T|%r"], "Invalid job id")
    if told is None:
        return {}
    forgotten = [job_id for job_id in job_ids if job_id not in told]
    if forgotten:
        accounts = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
        command = [*accounts, f"--jobs={','.join(forgotten)}"]
        accounted = _told(command, "storage is disabled") if shutil.which("sacct") else {}
        if accounted is None:
            return told
        told.update(accounted)
    return {job_id: told.get(job_id, JobState(GONE)) for job_id in job_ids}


def _told(command: Sequence[str], ignorance: str) -> dict[str, JobState] | None:
    """Return what squeue or sacct says of jobs; None when it does not answer.

    Args:
        command: the question.
        ignorance: part of the error by which it says that it knows none of them.
    """
    done = answer(command, QUERY_TIMEOUT_S)
    if done is None or (done.returncode != 0 and ignorance not in done.stderr):
        return None
    return job_states(done.stdout)
