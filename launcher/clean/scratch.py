"""Folders that runtimes without a daemon leave on a machine whose jobs were killed."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from launcher.clean.leftover import Leftover, is_own_folder, room_of
from launcher.job.scratch import scratch_parents

# As launcher.launch.container_name makes them; the folder of GPU locks has another name.
_SCRATCH = re.compile(r"launcher-[0-9a-f]{8}-.+")
# One that has just been made may not be locked yet.
_SCRATCH_LEAST_S = 3600.0
_UNPACKED = re.compile(
    r"(?P<image>.+)\.(?P<size>[0-9a-f]+)-(?P<mtime>[0-9a-f]+)\.unpacked(?P<changed>\.changed-.+)?"
)


def left_scratch(*, now_s: float) -> list[Leftover]:
    """Return the scratch folders of this user that no job holds any more."""
    found = []
    for path in _entries(*scratch_parents()):
        if not _SCRATCH.fullmatch(path.name) or not is_own_folder(path):
            continue
        with suppress(OSError):
            is_new = now_s - path.lstat().st_mtime < _SCRATCH_LEAST_S
            room = room_of(path)
            if not is_new and room.is_whole and not _is_held(path):
                why = "the job that used it is gone"
                found.append(Leftover("scratch", str(path), why, room.size_bytes, path))
    return found


def unused_roots(cache_dir: Path, *, older_than_s: float, now_s: float) -> list[Leftover]:
    """Return what Charliecloud's images were unpacked into, where no run can use it any more.

    A stage that still runs in one was started before the image was replaced: what is younger than
    the launches that are kept stays.
    """
    found = []
    for path in _entries(cache_dir):
        named = _UNPACKED.fullmatch(path.name)
        if named is None or not is_own_folder(path):
            continue
        with suppress(OSError):
            if now_s - path.lstat().st_ctime < older_than_s:
                continue
            if named["changed"]:
                why = "it was changed by hand, and made anew"
            elif _is_current(cache_dir / named["image"], named["size"], named["mtime"]):
                continue
            else:
                why = "the image that it was unpacked from is gone"
            room = room_of(path)
            if room.is_whole:
                found.append(Leftover("image", str(path), why, room.size_bytes, path))
    return found


def _is_current(image: Path, size: str, mtime: str) -> bool:
    try:
        told = image.stat()
    except FileNotFoundError:
        return False
    return (f"{told.st_size:x}", f"{told.st_mtime_ns:x}") == (size, mtime)


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or on a file system that cannot tell
        return True
    finally:
        os.close(descriptor)
    return False


def _entries(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        with suppress(OSError):
            yield from sorted(folder.iterdir())
