"""Files that appear whole or not at all.

A reader on another node, or a run that starts after a crash, must never take a half-written
file for a finished one: everything is written beside its destination and renamed into place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espnet3.utils.errors import storage_errors


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; rename it to ``path`` on success.

    The temporary keeps the suffixes of ``path``, since many writers choose their format by
    them. On any exception it is removed and ``path`` stays as it was.

    Raises:
        StorageError: when the folder cannot be written or the disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.partial.{path.name}")
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` so that a reader sees all of it or none."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a new empty folder beside ``path``; on success it replaces ``path`` as a whole.

    An earlier ``path`` stays in place until the new one is complete.

    Raises:
        StorageError: when the parent folder cannot be written or the disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tag = uuid.uuid4().hex[:8]
        temporary = path.with_name(f".{path.name}.{tag}.partial")
        retired = path.with_name(f".{path.name}.{tag}.retired")
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                path.replace(retired)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
