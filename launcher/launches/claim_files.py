"""The file by which launches claim a folder, and the lock under which it is changed.

::

    <exp_dir>/.launch.claim.json    {"schema": 1, "holders": [{"launch": "/…/20261122-141530-asr",
                                     "stages": […], "user": …, "host": …, "launcher": {…}}, …]}

Two submissions at the same instant are told apart by a lock on a file beside the claim, and where
the file system has no locks, by the one name that only one of them can make.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import ClaimError, RecordError
from launcher.launch import Launch
from launcher.processes.identity import ProcessId
from launcher.recorded.files import read_json
from launcher.recorded.kinds import list_of, record
from launcher.recorded.schemas import HOLDER

SCHEMA = 1
CLAIM, LOCK = ".launch.claim.json", ".launch.claim.lock"
_CLAIM = record({"holders": list_of(HOLDER)})
_READABLE, _SHARED = 0o044, 0o066


@dataclass(frozen=True)
class Holder:
    """A launch that stands in a claim.

    Attributes:
        directory: its launch directory.
        stages: what it was to run.
        user, host: who launched it, and where.
        launcher: the process that submitted it.
    """

    directory: Path
    stages: tuple[str, ...]
    user: str
    host: str
    launcher: ProcessId

    @classmethod
    def of(cls, launch: Launch) -> Holder:
        """Return what a launch of this process's puts into a claim."""
        stages = tuple(job.stage for job in launch.jobs)
        own = ProcessId.of(os.getpid())
        return cls(launch.directory, stages, current_user(), socket.gethostname(), own)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Holder:
        """Read back what ``to_record`` gave.

        Raises:
            Unfit: it is not whole.
        """
        known = HOLDER(record)
        return cls(
            Path(known["launch"]),
            tuple(known["stages"]),
            known["user"],
            known["host"],
            ProcessId.from_record(known["launcher"]),
        )

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "launch": str(self.directory),
            "stages": list(self.stages),
            "user": self.user,
            "host": self.host,
            "launcher": self.launcher.to_record(),
            "created": time.time(),
        }


def read(folder: Path) -> list[Holder]:
    """Return the launches that stand in the claim of a folder; none where it has no claim.

    Raises:
        ClaimError: it cannot be read.
    """
    path = folder / CLAIM
    try:
        held = _CLAIM(read_json(path))["holders"]
        return [Holder.from_record(each) for each in held]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ClaimError(
            f"{path} says which launch writes to that folder, and cannot be read: {why}. If none "
            "does, remove it and type the command once more."
        ) from error


def write(folder: Path, holders: Sequence[Holder], *, is_new: bool) -> None:
    """Write a claim whole; one that is new does not replace what another has just written.

    Raises:
        ClaimError: another launch was faster.
        RecordError: it cannot be written.
    """
    path, temporary = folder / CLAIM, folder / f".{uuid.uuid4().hex[:8]}{CLAIM}"
    record = {"schema": SCHEMA, "holders": [each.to_record() for each in holders]}
    try:
        try:
            with open(temporary, "x", opener=_opener(folder, _READABLE)) as file:
                json.dump(record, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                with suppress(FileNotFoundError):  # one that was damaged, and is removed by now
                    os.link(temporary, path)
            else:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ClaimError(
            f"another launch has just claimed {folder}. Type the command once more."
        ) from error
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


def take_out(folder: Path, directory: Path) -> None:
    """Take a launch out of the claim of a folder, of which the lock is held."""
    left = [each for each in read(folder) if each.directory != directory]
    if left:
        write(folder, left, is_new=False)
    else:
        (folder / CLAIM).unlink(missing_ok=True)


def make_writable(folder: Path) -> bool:
    """Make a folder where it is missing; where that is denied, no stage can write to it either."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder's claim.

    Raises:
        RecordError: its file cannot be written.
    """
    path = folder / LOCK
    try:
        lock = open(path, "a", opener=_opener(folder, _SHARED))  # noqa: SIM115
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error
    with lock:
        with suppress(OSError):  # no locks here (ENOLCK)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opener(folder: Path, others: int) -> Callable[[str, int], int]:
    """Return an opener of files that others may read, or also write, as they may the folder."""
    mode = 0o600 | (folder.stat().st_mode & others)

    def opener(path: str, flags: int) -> int:
        descriptor = os.open(path, flags, mode)
        with suppress(OSError):  # another person's
            os.fchmod(descriptor, mode)  # whatever the umask
        return descriptor

    return opener


def current_user() -> str:
    """Return the name of whoever runs this process; the uid where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
