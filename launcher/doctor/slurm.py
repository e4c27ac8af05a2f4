"""Checks of SLURM: whether it answers, what it keeps, and what a node sees, by a job of seconds."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.containers._client import ask
from launcher.doctor.finding import FAIL, INFO, OK, WARN, Finding
from launcher.doctor.subject import Subject
from launcher.errors import LauncherError
from launcher.slurm import client as slurm_client
from launcher.slurm.calls import submission_environment

# For a job of a second to get a node.
JOB_TIMEOUT_S = 90.0
_MOST_SKEW_S, _MOST_DELAY_S = 2.0, 5.0
# Run on the node by the launcher's own interpreter, which has to be seen there as well.
_ON_NODE = """\
import json, os, shutil, subprocess, sys, time
folder, runtime = sys.argv[1:]
told = {"node": os.uname().nodename, "free_bytes": shutil.disk_usage(folder).free}
try:
    done = subprocess.run([runtime, "--version"], capture_output=True, text=True, timeout=20)
    told["runtime"] = (done.stdout or done.stderr).strip().splitlines()[:1]
except (OSError, subprocess.TimeoutExpired) as error:
    told["runtime_problem"] = str(error)
told["time"] = time.time()
with open(os.path.join(folder, "node.partial"), "w") as file:
    json.dump(told, file)
os.rename(os.path.join(folder, "node.partial"), os.path.join(folder, "node.json"))
print(time.time())
"""


def reach(subject: Subject) -> Iterator[Finding]:
    """Tell whether SLURM answers, and what of it launches depend on."""
    is_chosen = subject.config.cluster.name == "slurm"
    if shutil.which("sbatch") is None:
        state = FAIL if is_chosen else INFO
        advice = "log in to a node of the cluster that has it" if is_chosen else ""
        yield Finding("SLURM", state, "there is no sbatch here", advice)
        return
    try:
        name = slurm_client.cluster_name()
    except LauncherError as error:
        yield Finding("SLURM", FAIL if is_chosen else INFO, str(error))
        return
    environment = submission_environment(os.environ)
    shown = ask(["sinfo", "--noheader", "--format=%R %a %D %G"], environment)
    partitions = "; ".join(shown.output.splitlines()) or "no partition that you may use"
    yield Finding("SLURM", OK, f"cluster {name} answers; partitions: {partitions}")
    yield _accounting(environment)
    kill_wait_s, grace_s = slurm_client.kill_wait_s(), subject.config.stop_grace_s
    if kill_wait_s is not None and kill_wait_s < grace_s:
        found = f"KillWait is {kill_wait_s:g} s, and stop_grace_s {grace_s:g} s"
        advice = f"a stage is killed after {kill_wait_s:g} s: set stop_grace_s to less than that"
        yield Finding("SLURM", WARN, found, advice)


def node(subject: Subject) -> Iterator[Finding]:
    """Have a job of seconds write into the folder of launches, and compare what it says."""
    settings = subject.config.cluster
    if settings.name != "slurm":
        yield Finding("node", INFO, "jobs run on this machine: there is no node to ask")
        return
    subject.launches_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".doctor.", dir=subject.launches_dir))
    chosen = {each: getattr(settings, each) for each in ("partition", "account", "qos")}
    options = [f"--{name}={value}" for name, value in chosen.items() if value]
    runtime = getattr(subject.config.container, "executable", "true")
    python = settings.python or sys.executable
    command = ["srun", "--quiet", "--nodes=1", "--ntasks=1", "--time=1", "--job-name=doctor"]
    command += [*options, f"--chdir={folder}", python, "-IS", "-c", _ON_NODE, str(folder), runtime]
    try:
        before_s = time.time()
        environment = submission_environment(os.environ)
        answer = ask(command, environment, timeout_s=JOB_TIMEOUT_S)
        after_s = time.time()
        if not answer.ok:
            found = f"a job could not do its work: {answer.error or 'it does not say why'}"
            advice = f"do the nodes have {subject.launches_dir} and {python}?"
            yield Finding("node", FAIL, found, advice)
            return
        told = _wait_for(folder / "node.json")
        delay_s = time.time() - after_s
        if told is None:
            found = f"what a job wrote into {subject.launches_dir} is not seen here"
            advice = "put launches on a file system that the nodes share: launches_dir=PATH"
            yield Finding("shared files", FAIL, found, advice)
            return
        yield from node_findings(told, before_s=before_s, after_s=after_s, delay_s=delay_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def node_findings(
    told: Mapping[str, Any], *, before_s: float, after_s: float, delay_s: float
) -> Iterator[Finding]:
    """Judge what a job told of its node. Pure.

    Args:
        told: what it wrote.
        before_s: when it was asked for, by this machine's clock.
        after_s: when it had ended.
        delay_s: until its file was seen here.
    """
    name = told["node"]
    skew_s = max(before_s - told["time"], told["time"] - after_s, 0.0)
    if skew_s > _MOST_SKEW_S:
        found = f"{name} is {skew_s:.1f} s apart from here"
        yield Finding("node clock", WARN, found, "have both set by NTP (chronyc tracking)")
    else:
        yield Finding("node clock", OK, f"{name} agrees with this machine")
    free = f"{told['free_bytes'] / 1e9:.1f} GB free there"
    found = f"{name} sees the folder of launches, and its file was seen here after {delay_s:.1f} s"
    if delay_s > _MOST_DELAY_S:
        advice = "records of stages come late: mount it with a shorter attribute cache (actimeo)"
        yield Finding("shared files", WARN, found, advice)
    else:
        yield Finding("shared files", OK, f"{found}; {free}")
    if problem := told.get("runtime_problem"):
        advice = "load its module in cluster.setup, or name it: container.executable=PATH"
        yield Finding("node runtime", WARN, f"{name}: {problem}", advice)
    elif told.get("runtime"):
        yield Finding("node runtime", OK, f"{name}: {told['runtime'][0]}")


def _accounting(environment: Mapping[str, str]) -> Finding:
    if shutil.which("sacct") is not None:
        answer = ask(["sacct", "--noheader", "--allocations", "--format=JobID"], environment)
        if answer.ok:
            return Finding("SLURM accounts", OK, "sacct tells of jobs that squeue has forgotten")
    found = "none: of a job that squeue has forgotten, the launch's own records tell"
    return Finding("SLURM accounts", INFO, found)


def _wait_for(path: Path) -> dict[str, Any] | None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads(path.read_text())
            return told
        time.sleep(0.1)
    return None
