"""SLURM's own commands: sbatch, scontrol, scancel, squeue, sacct. Each call is bounded in time."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.clusters.base import JobState
from launcher.errors import ConfigError, LauncherError
from launcher.processes import quick as quick_process
from launcher.status import (
    BY_SCHEDULER,
    CANCELLED,
    DONE,
    FAILED,
    GONE,
    PENDING,
    RUNNING,
    SKIPPED,
    WAITS_FOR_UPSTREAM,
)

_TIMEOUT_S = 60.0
_QUERY_TIMEOUT_S = 20.0
# A job that is being stopped may have no more than this to tell why.
_LAST_QUERY_TIMEOUT_S = 2.0
# What the script of a job whose processes were killed has for its last line.
_LAST_LINE_S = 3.0
_OF_THE_SITE = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# What an enclosing job was given, which srun and stages would take for what they are given; and
# what changes the commands: SBATCH_* overrides the script, SQUEUE_* hides jobs.
_OF_A_JOB = re.compile(
    r"(SLURMD?|SRUN|SBATCH|SQUEUE|SACCT|SCONTROL|SCANCEL|PMIX?|SUBMITIT)_"
    r"|(CUDA|ROCR|HIP)_VISIBLE_DEVICES$|GPU_DEVICE_ORDINAL$|ZE_AFFINITY_MASK$"
)
_OF_A_STAGE = ("MASTER_ADDR", "MASTER_PORT", "NNODES", "NODE_RANK")
_STATES = {
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
_IN_WORDS = {
    "TIMEOUT": OUT_OF_TIME,
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory: SLURM ended it",
    "PREEMPTED": "preempted by another job",
    "CANCELLED": "cancelled through SLURM",
}
# SLURM's reasons for ending a job that nobody cancelled.
_ENDED_BY = {
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


# How SLURM's commands say that they found no controller to ask, and that it does not answer.
_NO_CONTROLLER = re.compile(r"configuration source|resolve_ctls|DNS SRV|s_p_parse_file|SLURM_CONF")
_NO_ANSWER = re.compile(r"contact slurm controller|Socket timed out|[Cc]onnection refused")
# What says of a refusal that less of something, or another, would have been taken.
_TOO_MUCH = re.compile(r"available|processors|feature|partition|node count|[Mm]emory|[Gg]eneric")
_SHOWN_PARTITIONS = 4
_SINFO = "sinfo -o '%P %D %c %m %G %f'"
_REHEARSAL = "/var/lib/launcher-rehearsal"


class Unreachable(LauncherError):
    """SLURM's commands reach no controller from here."""


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


def submission_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for sbatch, which jobs inherit: nothing of an enclosing job in it."""
    job_id = inherited.get("SLURM_JOB_ID")
    kept = {
        name: value
        for name, value in inherited.items()
        if name in _OF_THE_SITE or not _OF_A_JOB.match(name)
    }
    if job_id is not None:
        for name in _OF_A_STAGE:
            kept.pop(name, None)
        # A folder that a prolog made for that job goes with it.
        if re.search(rf"(?<!\d){job_id}(?!\d)", kept.get("TMPDIR", "")):
            del kept["TMPDIR"]
    return kept


def sbatch(options: Sequence[str], script: str) -> str:
    """Submit a script and return what sbatch printed.

    Raises:
        LauncherError: it was refused; the message is sbatch's.
    """
    return _run(["sbatch", *options], script)


def test_only(script: str, stage: str, asked: Mapping[str, object]) -> None:
    """Have sbatch say whether a job like this could ever run; nothing is queued.

    Args:
        script: of the job.
        stage: its name.
        asked: settings by which it asks for nodes and what they have; None: not asked for.

    Raises:
        ConfigError: it could not; the message is sbatch's, what was asked and what there is.
        Unreachable: there is nobody to ask.
    """
    try:
        _run(["sbatch", "--test-only"], script)
    except Unreachable:
        raise
    except LauncherError as error:
        there = ""
        if _TOO_MUCH.search(str(error)):
            shown = ", ".join(f"{name}={value}" for name, value in asked.items() if value)
            there = f" It asks for {shown or 'nothing in particular'}. {_what_there_is()}"
        raise ConfigError(
            f"SLURM would not take {stage}: {error}.{there} What a stage asks for is set with "
            f"stages.{stage}.KEY=VALUE; --dry-run shows the script."
        ) from error


def _what_there_is() -> str:
    """Tell what the nodes of each partition have, and how to see more."""
    lines = (_ask(["sinfo", "--noheader", "--format=%P|%D|%c|%m|%G"]) or "").splitlines()
    partitions = [_as_partition(*fields) for line in lines if len(fields := line.split("|")) == 5]
    if not partitions:
        return f"What there is: {_SINFO}."
    left = len(partitions) - _SHOWN_PARTITIONS
    more = f"; and {left} more: {_SINFO}" if left > 0 else f" ({_SINFO})"
    return f"There is: {'; '.join(partitions[:_SHOWN_PARTITIONS])}{more}."


def _as_partition(name: str, nodes: str, cpus: str, memory_mib: str, gres: str) -> str:
    # A plus sign says that some of these nodes have more.
    mib = memory_mib.rstrip("+")
    memory = f"{int(mib) * 10 // 1024 / 10:g} GiB" if mib.isdigit() else memory_mib
    more = "" if gres == "(null)" else f", {gres}"
    return f"{name.rstrip('*')}: {nodes} nodes with {cpus} CPUs, {memory}{more}"


def cluster_name() -> str:
    """Return the name of the SLURM that answers here.

    Raises:
        LauncherError: none does, or it does not tell.
    """
    shown = _run(["scontrol", "show", "config"], timeout_s=_QUERY_TIMEOUT_S)
    found = re.search(r"^ClusterName\s*=\s*(\S+)", shown, re.MULTILINE)
    if found is None:
        raise LauncherError("scontrol show config names no ClusterName")
    return found[1]


def release(job_id: str) -> None:
    """Release a held job."""
    _run(["scontrol", "release", job_id])


def cancel(job_id: str, *, force: bool) -> None:
    """Cancel a job; one that is gone already is no error.

    Args:
        job_id: of the job.
        force: kill the processes that srun started at once. Cancelling a job, even by SIGKILL, has
            SLURM ask them by SIGTERM first. The script's last line then closes the record.
    """
    if force and _ask(["scancel", "--signal=KILL", f"{job_id}.0"]) is not None:
        deadline = time.monotonic() + _LAST_LINE_S
        while time.monotonic() < deadline and _ask(["squeue", "--noheader", f"--jobs={job_id}"]):
            time.sleep(0.1)
    _ask(["scancel", job_id])


def ask_to_stop(job_id: str, signal_name: str) -> None:
    """Send the processes of a job's step a signal that only those take that wait for it."""
    _ask(["scancel", f"--signal={signal_name}", f"{job_id}.0"])


def queued(job_id: str) -> Queued | None:
    """Return what the queue has of a job; None when it knows no such job, or does not answer."""
    show = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%Z"]
    state, bar, folder = (_ask(show) or "").removesuffix("\n").partition("|")
    return Queued(state, folder) if bar else None


def time_left_s(job_id: str) -> float | None:
    """Return the seconds before a job's time limit; None when there is none, or nobody tells."""
    show = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]
    told = (_ask(show, _LAST_QUERY_TIMEOUT_S) or "").strip()
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
    _run(["scontrol", "requeue", job_id])


def jobs_in(folder: Path) -> list[str]:
    """Return the jobs in the queue that have this working directory."""
    lines = (_ask(["squeue", "--noheader", "--format=%i|%Z"]) or "").splitlines()
    pairs = (line.partition("|") for line in lines)
    return [job_id for job_id, _, where in pairs if where == str(folder)]


def kill_wait_s() -> float | None:
    """Return the seconds between SIGTERM and SIGKILL on this cluster; None if it does not say."""
    shown = _ask(["scontrol", "show", "config"])
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
    done = _answer(show, timeout_s)
    if done is None or done.returncode != 0:
        raise LauncherError("SLURM does not answer")
    wanted = r"\b(JobState|Reason|Restarts|PreemptTime|StartTime)=(\S+)"
    fields = dict(re.findall(wanted, done.stdout))
    state, reason = fields.get("JobState", "RUNNING"), fields.get("Reason", "")
    if int(fields.get("Restarts", 0)) > restart_count or _STATES.get(state) == PENDING:
        return Ending(PENDING, "put back into the queue by SLURM")
    preempted, started = fields.get("PreemptTime", ""), fields.get("StartTime", "")
    # It may be None, or of an earlier run.
    if state == "RUNNING" and preempted[:1].isdigit() and preempted >= started:
        return Ending(FAILED, _in_words("PREEMPTED"), is_warning=True)
    if state == "TIMEOUT" or reason == "TimeLimit":
        return Ending(FAILED, OUT_OF_TIME)
    if state == "COMPLETING" and reason in ("", "None"):
        return Ending(CANCELLED, _IN_WORDS["CANCELLED"])
    if state == "COMPLETING":
        return Ending(FAILED, _ENDED_BY.get(reason, f"SLURM ended it: {reason}"))
    told = _STATES.get(state, RUNNING)
    return Ending(told, _in_words(state)) if told in (CANCELLED, FAILED) else None


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
    done = _answer(command, _QUERY_TIMEOUT_S)
    if done is None or (done.returncode != 0 and ignorance not in done.stderr):
        return None
    return _parsed(done.stdout)


def _parsed(text: str) -> dict[str, JobState]:
    lines = [line.split("|") for line in text.splitlines()]
    return {
        fields[0]: _state(fields[1], fields[2] if len(fields) > 2 else "")
        for fields in lines
        if len(fields) >= 2
    }


def _state(told: str, why: str) -> JobState:
    name = told.split()[0].rstrip("+")
    state = _STATES.get(name, RUNNING)
    if state == CANCELLED and why == _NEVER:
        return JobState(SKIPPED, "")
    if state == PENDING:
        return JobState(state, _why_it_waits(why))
    if state == RUNNING:
        return JobState(state, "" if name in ("RUNNING", "COMPLETING") else name.lower())
    if state == CANCELLED and not why and told == name:
        return JobState(state, BY_SCHEDULER)  # else sacct says: CANCELLED by 1000
    by = re.search(r" by (\d+)$", told)
    return JobState(state, _in_words(name) + (f" by {_user(int(by[1]))}" if by else ""))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _in_words(name: str) -> str:
    return _IN_WORDS.get(name, f"SLURM says {name}")


def _why_it_waits(why: str) -> str:
    if why == "JobHeldUser":
        return "held"
    if _FOR_EVER.search(why):
        return f"will not start by itself: SLURM says {why}"
    return _WAITING_IN_WORDS.get(why, f"in the queue: SLURM says {why}")


def _run(
    command: Sequence[str], script: str | None = None, *, timeout_s: float = _TIMEOUT_S
) -> str:
    if conf := _absent_configuration():
        raise Unreachable(_unreachable(f"SLURM_CONF={conf}, and there is no such file"))
    try:
        done = quick_process.run(
            command,
            stdin=os.fsencode(script or ""),
            environment=submission_environment(os.environ),
            timeout_s=timeout_s,
        )
    except FileNotFoundError:
        raise LauncherError(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise LauncherError(f"{command[0]} has not answered within {timeout_s:g} s") from None
    output, errors = (os.fsdecode(each).strip() for each in (done.stdout, done.stderr))
    if done.returncode != 0:
        said = errors or output or f"exit status {done.returncode}"
        words = r"^(sbatch: |scontrol: |error: |fatal: )+"
        lines = [re.sub(words, "", each) for each in said.splitlines()]
        if _NO_CONTROLLER.search(said):
            raise Unreachable(_unreachable(f"{command[0]}: {lines[-1]}"))
        if _NO_ANSWER.search(said):
            raise Unreachable(
                f"SLURM does not answer ({command[0]}: {'; '.join(lines)}). `scontrol ping` tells "
                "whether its controller is up; type the command again when it is."
            )
        raise LauncherError(f"{command[0]}: {'; '.join(lines)}".rstrip("."))
    return output


def _absent_configuration() -> str | None:
    """Return SLURM_CONF where it names no file, for which SLURM's commands would wait a minute."""
    conf = os.environ.get("SLURM_CONF")
    return conf if conf and not Path(conf).exists() else None


def _unreachable(why: str) -> str:
    """Say that SLURM's commands do not know which controller to ask, and what to do."""
    script = Path(os.environ.get("REHEARSAL_DIR") or _REHEARSAL, "env.sh")
    here = f"; on the rehearsal cluster: . {script}" if script.exists() else ""
    return (
        f"SLURM's commands find no controller from here ({why}). Load what your site sets for "
        f"SLURM, or set SLURM_CONF to its slurm.conf{here}."
    )


def _ask(command: Sequence[str], timeout_s: float = _QUERY_TIMEOUT_S) -> str | None:
    """Run a command that only asks; None when it is not there, fails or takes too long."""
    done = _answer(command, timeout_s)
    return done.stdout if done is not None and done.returncode == 0 else None


def _answer(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    if _absent_configuration():
        return None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            env=submission_environment(os.environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Anybody's job may have a working directory that is no UTF-8.
    said = (os.fsdecode(each) for each in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, *said)
