"""That what a job loads is what its launch has written: nobody else may have had a hand in it.

A job unpickles a file of its launch directory, and to unpickle is to run what stands there.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
import stat
from pathlib import Path

from launcher.errors import RecordError

_ANY, _WRITE = 0o077, 0o022


def sha256(path: Path) -> str:
    """Return the digest of a file, as it stands in the record of a submission.

    Raises:
        OSError: it cannot be read.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_private(directory: Path) -> None:
    """Refuse a launch directory that is another person's, or that others can look into.

    Raises:
        RecordError: it is; with what to type.
    """
    _check(directory, _ANY, "700", "read")


def check_unwritten(path: Path) -> None:
    """Refuse a file or folder that is another person's, or that others may write to.

    Raises:
        RecordError: it is; with what to type.
    """
    _check(path, _WRITE, "go-w", "write")


def check_pickle(path: Path, recorded: str | None) -> None:
    """Refuse a pickle that is not the one that was written at submission.

    Args:
        path: of the pickle.
        recorded: its digest then; None of an older launch, which did not tell.

    Raises:
        RecordError: it is another one, or may be.
    """
    check_unwritten(path)
    try:
        found = sha256(path)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    if recorded is not None and found != recorded:
        raise RecordError(
            f"{path} is not what was written at submission: its SHA-256 is {found[:12]}…, and "
            f"{recorded[:12]}… is on record. It was not loaded. Launch again, and find out who has "
            "changed it."
        )


def _check(path: Path, forbidden: int, mode: str, what: str) -> None:
    try:
        found = path.lstat()
    except OSError as error:
        raise RecordError(f"cannot look at {path}: {error.strerror}") from error
    if found.st_uid not in (os.geteuid(), 0):
        raise RecordError(
            f"{path} belongs to {_name(found.st_uid)}, and not to {_name(os.geteuid())}, who "
            "launched it. Nothing in it is trusted: launch again."
        )
    if stat.S_ISLNK(found.st_mode):
        raise RecordError(f"{path} is a link, which no launch makes. Launch again.")
    if found.st_mode & forbidden:
        may = "write to" if found.st_mode & forbidden & _WRITE else what
        raise RecordError(
            f"others may {may} {path}: its mode is {stat.S_IMODE(found.st_mode):o}. See that "
            f"nobody has changed anything in it, then type: chmod {mode} {shlex.quote(str(path))}"
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
