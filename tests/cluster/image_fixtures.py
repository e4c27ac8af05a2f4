"""The project's cpu image, really built, pushed and pinned; made once and kept between runs.

The first time takes three minutes: torch is installed, a gigabyte is pushed, and a SIF is made of
it. After that, Docker's layers, the registry's and the SIF are there, and it takes two seconds.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.rehearsed import Rehearsal

REPOSITORY = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 900


@dataclass(frozen=True)
class CpuImage:
    """The image that stages run in.

    Attributes:
        lock_file: in which `cpu` is pinned, with the checksum of its SIF.
        cache_dir: folder of converted images, with the SIF in it.
    """

    lock_file: Path
    cache_dir: Path


@pytest.fixture(scope="session")
def cpu_image(rehearsal: Rehearsal, base_image: str) -> CpuImage:
    """Return the cpu image: in Docker, in the registry, as a SIF in the cache, and pinned."""
    folder = Path(rehearsal.environment["REHEARSAL_DIR"]) / "cache" / "images"
    folder.mkdir(mode=0o700, exist_ok=True)
    image = CpuImage(folder / "images.lock.yaml", folder / "converted")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = ("--engine", "docker")
        launcher_image(rehearsal, "build", "cpu", "--base", base_image, *engine)
        repository = f"{rehearsal.registry}/launcher-cpu"
        pushed = launcher_image(rehearsal, "push", "cpu", "--to", repository, *engine)
        reference = re.search(rf"{re.escape(repository)}@sha256:[0-9a-f]{{64}}", pushed)
        assert reference is not None, pushed
        options = ("--lock", str(image.lock_file), "--cache", str(image.cache_dir))
        launcher_image(rehearsal, "pin", "cpu", reference[0], "--sif", *engine, *options)
        _forget_earlier_images(image.cache_dir, reference[0].rpartition(":")[2])
    return image


def launcher_image(rehearsal: Rehearsal, *arguments: str, status: int = 0) -> str:
    """Run ``python -m launcher image …``; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "image", *arguments],
        cwd=REPOSITORY,
        env={"USER": "root", **os.environ, **rehearsal.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == status, f"{arguments} → {done.returncode}\n{done.stdout}"
    return done.stdout


def _forget_earlier_images(cache_dir: Path, digest_hex: str) -> None:
    for path in cache_dir.glob("*sha256-*"):
        if digest_hex not in path.name and path.is_file():
            path.unlink()
