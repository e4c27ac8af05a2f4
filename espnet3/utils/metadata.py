"""What ran, where, from which code and config: the content of ``<stage>.metadata.json``."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from espnet3.utils.masking import mask_arguments, mask_mapping, remember_secrets

SCHEMA = 1

# Named one by one: SLURM_JWT and its like must never be written.
_JOB_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURM_SUBMIT_HOST",
    "SUBMITIT_LOCAL_JOB_ID",
    "LAUNCHER_LAUNCH_ID",
)
_CONTAINER_VARIABLES = (
    "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
    "ENROOT_ROOTFS",
    "CH_RUNNING",
    "container",
    "LAUNCHER_IMAGE",
)
# Set by a launcher: the runtime that it runs the stage in, and where each of its code roots stood
# at submission, as JSON: {"/path": "<commit>" or "<commit>-dirty"}.
_RUNTIME, _COMMITS = "LAUNCHER_CONTAINER", "LAUNCHER_GIT_COMMITS"
_DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "NVIDIA_VISIBLE_DEVICES")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_CPUS_PER_TASK")


def stage_metadata(stage: str, system: Any, args: argparse.Namespace | None) -> dict[str, Any]:
    """Return what is known when a stage starts, secrets masked, its state ``running``."""
    configs = collect_configs(system, args)
    return {
        "schema": SCHEMA,
        "run_id": uuid.uuid4().hex,
        "stage": stage,
        "state": "running",
        "system": f"{type(system).__module__}.{type(system).__qualname__}",
        "command": {
            "argv": mask_arguments([sys.executable, *sys.argv]),
            "working_dir": str(Path.cwd()),
        },
        "configs": configs,
        "seeds": _seeds(configs),
        "git": git_state(_code_folder()),
        "host": {
            "name": socket.gethostname(),
            "user": _user(),
            "pid": os.getpid(),
            "platform": platform.platform(),
            "cpus": len(os.sched_getaffinity(0)),
        },
        "python": platform.python_version(),
        "packages": installed_packages(),
        "devices": _devices(),
        "job": _present(_JOB_VARIABLES),
        "container": _container(),
        "environment": _present(_THREAD_VARIABLES),
        "start_time": now(),
    }


def finish_metadata(metadata: dict[str, Any]) -> None:
    """Add what is known only at the end: time taken, memory, the CUDA that torch found."""
    end = datetime.now(timezone.utc)
    start = datetime.fromisoformat(metadata["start_time"])
    metadata["end_time"] = end.isoformat(timespec="milliseconds")
    metadata["elapsed_s"] = round((end - start).total_seconds(), 3)
    metadata["peak_memory_gb"] = peak_memory_gb()
    torch = sys.modules.get("torch")
    if torch is not None:
        metadata["devices"]["torch_cuda"] = torch.version.cuda
        if torch.cuda.is_initialized():
            metadata["devices"]["peak_gpu_memory_gb"] = round(
                torch.cuda.max_memory_allocated() / 2**30, 3
            )


def now() -> str:
    """Return the time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def collect_configs(system: Any, args: argparse.Namespace | None) -> dict[str, Any]:
    """Return ``{role: {"path", "resolved"}}`` of every config, a recipe's own roles included.

    A role is any ``<role>_config`` among the command line's arguments or the system's
    attributes, so that ``prepare_labels_config`` is recorded like the standard ones.
    """
    paths = {
        name.removesuffix("_config"): str(Path(value).absolute())
        for name, value in vars(args or argparse.Namespace()).items()
        if name.endswith("_config") and value is not None
    }
    contents = {
        name.removesuffix("_config"): _plain(value)
        for name, value in vars(system).items()
        if name.endswith("_config") and value is not None
    }
    remember_secrets(contents)  # one may stand under another key as well
    return {
        role: {"path": paths.get(role), "resolved": mask_mapping(contents.get(role))}
        for role in sorted({*paths, *contents})
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit, branch and the state of uncommitted changes; ``None`` outside git.

    ``diff_sha256`` covers the tracked files' difference to the commit, so that two runs from
    equally changed trees can be told to be equal. Where git tells nothing, as in an image without
    it, it is what the launcher knew at submission, as far as that goes.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return _git_state_at_submission(folder)
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--binary") or ""
    status = (_git(folder, "status", "--porcelain") or "").splitlines()
    return {
        "commit": commit.strip(),
        "branch": (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "dirty": bool(status),
        "changed_files": [line[3:] for line in status[:100]],
        "diff_sha256": hashlib.sha256(diff.encode(errors="replace")).hexdigest() if diff else None,
    }


def _git_state_at_submission(folder: Path) -> dict[str, Any] | None:
    try:
        told = {Path(root): str(what) for root, what in json.loads(os.environ[_COMMITS]).items()}
    except (KeyError, ValueError, AttributeError):
        return None
    roots = [root for root in told if folder.is_relative_to(root)]
    if not roots:
        return None
    commit, dash, _ = told[max(roots, key=lambda root: len(root.parts))].partition("-")
    return {
        "commit": commit,
        "branch": None,
        "dirty": bool(dash),
        "changed_files": [],
        "diff_sha256": None,
    }


def installed_packages() -> dict[str, str]:
    """Return ``{name: version}`` of the distributions that this Python can import."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(name, distribution.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def reset_peak_memory() -> None:
    """Have :func:`peak_memory_gb` count from now: Linux resets VmHWM on request (proc(5))."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gb() -> float:
    """Return the largest resident memory of this process, or of a child of it, in GiB."""
    children_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        own_kb = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return round(max(own_kb, children_kb) / 2**20, 3)


def _plain(value: Any) -> Any:
    from omegaconf import OmegaConf

    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=False)
    return value


def _seeds(configs: dict[str, Any]) -> dict[str, Any]:
    return {
        role: config["resolved"]["seed"]
        for role, config in configs.items()
        if isinstance(config["resolved"], dict) and "seed" in config["resolved"]
    }


def _code_folder() -> Path:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(script).absolute().parent if script else Path.cwd()


def _git(folder: Path, *arguments: str) -> str | None:
    if shutil.which("git") is None:
        return None
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            # Reading must not take the index lock from under a person's own git command.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout if completed.returncode == 0 else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a passwd entry
        return str(os.getuid())


def _present(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _container() -> dict[str, str]:
    identity = _present(_CONTAINER_VARIABLES)
    found = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
    around = next((name for mark, name in found.items() if Path(mark).exists()), None)
    told = os.environ.get(_RUNTIME)
    if told == "none" and around is not None:  # the host of the stage is a container itself
        return {**identity, "runtime": told, "host": around}
    runtime = told or around
    return {**identity, "runtime": runtime} if runtime else identity


def _devices() -> dict[str, Any]:
    devices: dict[str, Any] = dict(_present(_DEVICE_VARIABLES))
    query = ["--query-gpu=index,name,uuid,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which("nvidia-smi"):
        with suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                ["nvidia-smi", *query], capture_output=True, text=True, timeout=20, check=True
            )
            devices["gpus"] = listed.stdout.strip().splitlines()
    return devices
