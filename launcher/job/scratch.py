"""The node's folder that a container has as its ``/tmp`` when its image cannot be written.

Who uses it holds a lock on it, which the kernel releases however that process ends: so a later
``launcher clean`` knows what nobody uses.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.errors import LauncherError


def scratch_dir(name: str) -> Path:
    """Return the folder of a container."""
    return Path(os.environ.get("TMPDIR") or "/tmp") / name


def scratch_parents() -> list[Path]:
    """Return where such folders may be on this machine, as far as it is known here."""
    named = [os.environ.get("TMPDIR") or "/tmp", "/tmp"]
    return list(dict.fromkeys(Path(each) for each in named))


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Have the folder of a container, empty, for as long as the context is entered.

    Raises:
        LauncherError: it cannot be made.
    """
    folder = scratch_dir(name)
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    try:
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LauncherError(f"cannot make {folder}: {error.strerror}") from error
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
