"""Files that appear whole or not at all, locks between processes, and digests of files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.errors import ImageError

_BLOCK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Return ``sha256:…`` of a file's whole content.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def partial_name(path: Path) -> Path:
    """Return a name beside ``path`` for what is to become it; its suffix stays."""
    return path.with_name(f".{uuid.uuid4().hex[:8]}.partial.{path.name}")


def partials_of(path: Path) -> list[Path]:
    """Return what is left beside ``path`` of attempts to make it."""
    return [each for each in path.parent.glob(".*.partial.*") if each.name.endswith(path.name)]


def write_whole(path: Path, text: str) -> None:
    """Write a text so that a reader sees all of it or what was there before.

    Raises:
        ImageError: it cannot be written.
    """
    temporary = partial_name(path)
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder that exists; yield whether its file system has locks.

    Raises:
        ImageError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"{path} cannot be locked: {error.strerror or error}") from error
    try:
        yield _flock(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        # Some network file systems have no locks, or none for what is opened to be read (NFS).
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise
        return False
    return True
