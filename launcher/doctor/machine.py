"""Checks of this machine: Python, GPUs, room on disks, locks and the clock."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from launcher.containers._client import ask
from launcher.doctor.finding import FAIL, INFO, OK, WARN, Finding
from launcher.doctor.subject import Subject

_PACKAGES = ("submitit", "hydra-core", "omegaconf", "docker", "rich", "PyYAML")
_LEAST_FREE_BYTES, _LEAST_FREE_INODES = 2 * 10**9, 10_000
_FULL_BYTES = 100 * 10**6
# Times of files on a network are the server's. Beyond this, what was later may look earlier.
_MOST_SKEW_S = 2.0


def python(subject: Subject) -> Iterator[Finding]:
    """Tell the interpreter and the libraries that the launcher stands on."""
    versions, missing = [], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    found = f"Python {platform.python_version()}; {', '.join(versions)}"
    if missing:
        advice = "install the project: python -m pip install -e ."
        yield Finding("python", FAIL, f"{found}; without {', '.join(missing)}", advice)
    else:
        yield Finding("python", OK, found)


def gpus(subject: Subject) -> Iterator[Finding]:
    """Tell the GPUs that the driver lists, and whether containers can be given them."""
    query = ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader"]
    answer = ask(query, dict(os.environ))
    if not answer.ok:
        wants = subject.config.resources.gpus_per_node > 0
        is_local = subject.config.cluster.name != "slurm"
        found = f"none that nvidia-smi lists ({answer.error or 'no reason given'})"
        advice = "stages ask for GPUs: resources.gpus_per_node" if wants and is_local else ""
        yield Finding("GPU", FAIL if wants and is_local else INFO, found, advice)
        return
    names = [line.strip() for line in answer.output.splitlines()]
    yield Finding("GPU", OK, f"{len(names)}: {'; '.join(names)}")
    specs = [each for each in ("/etc/cdi", "/var/run/cdi") if any(Path(each).glob("nvidia*"))]
    toolkit = shutil.which("nvidia-ctk") or shutil.which("nvidia-container-cli")
    if specs or toolkit:
        yield Finding("GPU in containers", OK, ", ".join([*specs, *([toolkit] if toolkit else [])]))
    else:
        yield Finding(
            "GPU in containers",
            WARN,
            "neither NVIDIA's container toolkit nor a CDI specification",
            "docker and podman need it: install nvidia-container-toolkit, then "
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )


def room(subject: Subject) -> Iterator[Finding]:
    """Tell the room that is left where launches write."""
    for name, folder in subject.folders().items():
        there = existing(folder)
        told = os.statvfs(there)
        free, inodes = told.f_bavail * told.f_frsize, told.f_favail
        has_inodes = told.f_files > 0  # btrfs and some network file systems do not count them
        found = f"{name}: {free / 1e9:.1f} GB free in {there}"
        if not os.access(there, os.W_OK | os.X_OK):
            yield Finding("disk", FAIL, f"{name}: you cannot write to {there}", "choose another")
        elif free < _FULL_BYTES or (has_inodes and inodes < 100):
            yield Finding("disk", FAIL, found, "make room: python -m launcher clean")
        elif (free < _LEAST_FREE_BYTES and name != "shared memory") or (
            has_inodes and inodes < _LEAST_FREE_INODES
        ):
            advice = "make room: python -m launcher clean"
            yield Finding("disk", WARN, f"{found}, {inodes} files more", advice)
        else:
            yield Finding("disk", OK, found)


def clock_and_locks(subject: Subject) -> Iterator[Finding]:
    """Compare this clock with the file system's, and see that the file system has locks."""
    folder = existing(subject.launches_dir)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
            before_s = time.time()
            os.utime(file.fileno())
            at_s = os.fstat(file.fileno()).st_mtime
            yield _skew("clock", "the file system's", at_s, before_s, time.time())
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield Finding("locks", OK, f"work in {folder}")
            except OSError as error:
                yield Finding(
                    "locks",
                    WARN,
                    f"do not work in {folder}: {error.strerror}",
                    "put the launches where locks work: launches_dir=PATH",
                )
    except OSError as error:
        advice = "choose another folder: launches_dir=PATH"
        yield Finding("locks", FAIL, f"cannot write to {folder}: {error.strerror}", advice)


def _skew(topic: str, whose: str, at_s: float, before_s: float, after_s: float) -> Finding:
    """Compare a time of another clock with the two of this one between which it was told."""
    behind_s = max(before_s - at_s, at_s - after_s, 0.0)
    if behind_s > _MOST_SKEW_S:
        found = f"{behind_s:.1f} s apart from {whose}"
        return Finding(topic, WARN, found, "have both set by NTP (chronyc tracking)")
    return Finding(topic, OK, f"agrees with {whose}")


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())
