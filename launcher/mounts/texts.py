"""Paths in what a launch is made from: arguments, values of configs, environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_PATH_MAX = 4096
_SEPARATORS = re.compile(r"[\s,:;|]+")
_WRAPPING = "\"'[](){}<>"


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in nested mappings and lists; keys left out."""
    if isinstance(value, str | os.PathLike):
        yield os.fspath(value) if not isinstance(value, str) else value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from texts_in(each)


def paths_in(text: str, working_dir: Path) -> Iterator[str]:
    """Yield what may be a path in a text, absolute and normalised; the surest first.

    A text is looked at as a whole, then without what stands before an equals sign. Where that is
    not there, pieces of it may be (``a:b``, ``[a,b]``); of these only what is there is yielded.
    """
    for whole in dict.fromkeys((text, text.partition("=")[2])):
        path = _absolute(whole, working_dir)
        if path is not None:
            yield path
        if path is None or not exists(path):
            for piece in _SEPARATORS.split(whole):
                path = _absolute(piece.strip(_WRAPPING), working_dir)
                if path is not None and exists(path):
                    yield path


def exists(path: str) -> bool:
    """Tell whether there is something under that name; a name that cannot be one has nothing."""
    try:
        os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return True


def _absolute(text: str, working_dir: Path) -> str | None:
    """Return what a path from outside the recipe looks like; within it nothing is to be found."""
    text = text.removeprefix("file://")
    if not text or len(text) > _PATH_MAX or "\0" in text or text.startswith("//"):
        return None
    if text.startswith("~"):
        text = os.path.expanduser(text)  # noqa: PTH111
    if not text.startswith("/"):
        if ".." not in text.split("/"):
            return None
        text = f"{working_dir}/{text}"
    return os.path.normpath(text)
