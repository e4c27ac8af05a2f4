"""The errors a person can mend, each shown as one message without a traceback.

::

    RecipeError                a mistake in what the recipe was given
    ├── ConfigError            a config that is missing, or a key unknown or of the wrong type
    │   └── UnknownStageError  a stage name that the recipe does not have
    ├── MissingStageError      a stage that the runner lists and the system does not implement
    ├── StageSignatureError    a stage method that wants arguments
    ├── DataError              audio, a transcript or a split that cannot be used
    ├── CheckpointError        no checkpoint, or none that can be read
    ├── BusyError              another process is at work on the same output
    └── StorageError           a full disk, a folder or path that cannot be written

A message says what was asked, what was found, and what to do next.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class RecipeError(Exception):
    """A mistake that the person who started the run can mend."""


class ConfigError(RecipeError, ValueError):
    """A config is missing, or holds a key that is unknown or of the wrong type."""


class UnknownStageError(ConfigError):
    """A stage was asked for that the recipe does not have."""


class MissingStageError(RecipeError, AttributeError):
    """The system has no method of a stage's name."""


class StageSignatureError(RecipeError, TypeError):
    """A stage method takes arguments, where its settings belong in YAML."""


class DataError(RecipeError):
    """Audio, a transcript or a split that cannot be used."""


class CheckpointError(RecipeError):
    """There is no checkpoint, or none that can be read."""


class BusyError(RecipeError):
    """Another process is at work on the same output."""


class StorageError(RecipeError):
    """The disk is full, or a folder or path cannot be written."""


_STORAGE_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, or point the folder at another disk",
    errno.EDQUOT: "the disk quota is used up; free some space, or ask for more",
    errno.EROFS: "the file system is read-only; point the folder at one that can be written",
    errno.EACCES: "permission is denied; check who owns the folder and its mode",
    errno.EPERM: "the operation is not permitted; check who owns the folder and its mode",
    errno.EEXIST: "a file stands where a folder is needed; name another folder, or move the file",
    errno.ENOTDIR: "a part of the path is a file; name another folder, or move the file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its symbolic links lead in a circle; name another folder, or mend the links",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write below ``path`` into a :class:`StorageError`.

    Raises:
        StorageError: for a full disk, a used-up quota, a read-only file system, a missing
            permission, or a path that can be no folder. Any other :class:`OSError` passes
            unchanged.
    """
    try:
        yield
    except ValueError as error:
        if "embedded null byte" not in str(error):
            raise
        raise StorageError(f"Cannot write {str(path)!r}: a name cannot hold a NUL byte.") from error
    except OSError as error:
        advice = _STORAGE_ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        raise StorageError(f"Cannot write {error.filename or path}: {advice}.") from error


def nearest(name: str, known: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name nearest to ``name``, else ``""``."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
