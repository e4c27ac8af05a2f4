"""Running SLURM's commands: in what environment, how long, and what is said when none answers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.errors import LauncherError, NoAnswer
from launcher.processes import quick as quick_process

TIMEOUT_S = 60.0
QUERY_TIMEOUT_S = 20.0
_OF_THE_SITE = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# What an enclosing job was given, which srun and stages would take for what they are given; and
# what changes the commands: SBATCH_* overrides the script, SQUEUE_* hides jobs.
_OF_A_JOB = re.compile(
    r"(SLURMD?|SRUN|SBATCH|SQUEUE|SACCT|SCONTROL|SCANCEL|PMIX?|SUBMITIT)_"
    r"|(CUDA|ROCR|HIP)_VISIBLE_DEVICES$|GPU_DEVICE_ORDINAL$|ZE_AFFINITY_MASK$"
)
_OF_A_STAGE = ("MASTER_ADDR", "MASTER_PORT", "NNODES", "NODE_RANK")
# How SLURM's commands say that they found no controller to ask, and that it does not answer.
_NO_CONTROLLER = re.compile(r"configuration source|resolve_ctls|DNS SRV|s_p_parse_file|SLURM_CONF")
_NO_ANSWER = re.compile(r"contact slurm controller|Socket timed out|[Cc]onnection refused")
_REHEARSAL = "/var/lib/launcher-rehearsal"


class Unreachable(LauncherError):
    """SLURM's commands reach no controller from here."""


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


def run(command: Sequence[str], script: str | None = None, *, timeout_s: float = TIMEOUT_S) -> str:
    """Run a command that does something, and return what it printed.

    Args:
        command: its words.
        script: its standard input.
        timeout_s: seconds that it may take.

    Raises:
        Unreachable: there is no SLURM to be reached from here.
        NoAnswer: there is one, which does not answer.
        LauncherError: it failed, is not there, or took too long; the message is its own.
    """
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
        raise LauncherError(
            f"there is no {command[0]} here. Type the command on a login node of the cluster."
        ) from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} has not answered within {timeout_s:g} s") from None
    output, errors = (os.fsdecode(each).strip() for each in (done.stdout, done.stderr))
    if done.returncode != 0:
        said = errors or output or f"exit status {done.returncode}"
        words = r"^(sbatch: |scontrol: |error: |fatal: )+"
        lines = [re.sub(words, "", each) for each in said.splitlines()]
        if _NO_CONTROLLER.search(said):
            raise Unreachable(_unreachable(f"{command[0]}: {lines[-1]}"))
        if _NO_ANSWER.search(said):
            raise NoAnswer(
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


def ask(command: Sequence[str], timeout_s: float = QUERY_TIMEOUT_S) -> str | None:
    """Run a command that only asks; None when it is not there, fails or takes too long."""
    done = answer(command, timeout_s)
    return done.stdout if done is not None and done.returncode == 0 else None


def answer(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """Run a command that only asks, and return how it went; None when there was no answer."""
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
