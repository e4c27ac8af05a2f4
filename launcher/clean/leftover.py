"""One thing that a launch left behind, how much room it takes, and how it is removed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import registry
from launcher.errors import LauncherError

# A launch directory that is being removed is given such a name first: half removed, it would look
# like a damaged launch.
REMOVING = ".removing"
_BLOCK_BYTES = 512  # st_blocks counts in these, whatever the file system has (stat(2))


@dataclass(frozen=True)
class Leftover:
    """Something that can go.

    Attributes:
        kind: ``launch``, ``container`` and the like.
        name: a path, or the name of a container.
        why: it can go.
        size_bytes: room that it takes on a disk; 0 for what takes none worth speaking of.
        path: of a file or folder; None for a container.
        runtime: settings of the container's runtime.
    """

    kind: str
    name: str
    why: str
    size_bytes: int = 0
    path: Path | None = None
    runtime: Any = None

    def remove(self) -> None:
        """Remove it.

        Raises:
            LauncherError: it cannot be removed, or not all of it.
        """
        if self.path is None:
            implementation = registry.load("containers", self.runtime.name).Implementation
            implementation(self.runtime).remove(self.name)
            return
        try:
            _remove(self.path)
        except OSError as error:
            where = error.filename or self.path
            raise LauncherError(f"cannot remove {where}: {error.strerror}") from error


@dataclass(frozen=True)
class Room:
    """What a folder takes, and whether it is one file system."""

    size_bytes: int
    is_whole: bool


def room_of(path: Path) -> Room:
    """Measure a file or folder; links are not followed, and a file of several names counts once."""
    top = path.lstat()
    seen: set[tuple[int, int]] = set()
    size_bytes, is_whole = 0, True
    for each in _entries(path, top):
        is_whole = is_whole and each.st_dev == top.st_dev
        if (each.st_dev, each.st_ino) not in seen:
            seen.add((each.st_dev, each.st_ino))
            size_bytes += each.st_blocks * _BLOCK_BYTES
    return Room(size_bytes, is_whole)


def is_own_folder(path: Path) -> bool:
    """Tell whether there is a folder of this user's, and no link to one."""
    try:
        told = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(told.st_mode) and told.st_uid == os.geteuid()


def _entries(path: Path, told: os.stat_result) -> Iterator[os.stat_result]:
    yield told
    if not stat.S_ISDIR(told.st_mode):
        return
    pending = [os.fspath(path)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:  # it is just going, or may not be looked into
            continue


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    going = path
    if not path.name.endswith(REMOVING):
        going = path.with_name(f".{path.name}{REMOVING}")
        path.rename(going)
    (going / "launch.json").unlink(missing_ok=True)
    for folder, _, _ in os.walk(going):  # some tools take from themselves the right to write
        told = os.lstat(folder)
        if told.st_mode & 0o700 != 0o700 and told.st_uid == os.geteuid():
            os.chmod(folder, told.st_mode | 0o700, follow_symlinks=True)  # noqa: PTH101
    shutil.rmtree(going)
