"""The files of a stage run beside each other: ``<stage>.log``, ``.out`` and ``.metadata.json``.

The stage framework writes the log and the metadata (``espnet3/utils/stage_files.py``), the job
writes the raw output. Whoever comes first gives the files of an earlier run their number, all three
the same one, under the same lock; a run's own output is known by its inode, whatever it is called.
"""

from __future__ import annotations

import fcntl
import json
import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

SUFFIXES = (".log", ".metadata.json", ".out")
# Tells the stage framework which raw output is this run's own, and stays where it is.
OUTPUT_INODE = "LAUNCHER_OUTPUT_INODE"


def open_output(path: Path) -> IO[bytes]:
    """Open the raw output file of a run; the files of an earlier run are kept under a number.

    Raises:
        OSError: the file or its folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        number = 1
        while any(_file(path, number, suffix).exists() for suffix in SUFFIXES):
            number += 1
        for suffix in SUFFIXES:
            with suppress(FileNotFoundError):
                _file(path, "", suffix).rename(_file(path, number, suffix))
        return path.open("xb")


def locate_output(path: Path, inode: int) -> Path | None:
    """Return the name that a run's raw output has by now; None when it was deleted."""
    if _has_inode(path, inode):
        return path
    name = re.compile(rf"{re.escape(path.stem)}\d+\.out")
    numbered = (each for each in path.parent.glob("*.out") if name.fullmatch(each.name))
    return next((each for each in numbered if _has_inode(each, inode)), None)


def close_metadata(path: Path, inode: int, *, state: str, exit_code: int, reason: str) -> None:
    """Say how a stage ended that could not say so itself, since it was killed.

    Metadata that does not say ``running`` is left alone.

    Args:
        path: of the raw output when the stage started.
        inode: of the raw output; the metadata beside it is the run's.
        state: ``done``, ``failed`` or ``interrupted``.
        exit_code: as a shell has it.
        reason: in words.

    Raises:
        OSError: the folder cannot be written.
    """
    with _lock(path):
        output = locate_output(path, inode)
        if output is None:
            return
        file = output.with_suffix(".metadata.json")
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if not isinstance(metadata, dict) or metadata.get("state") != "running":
            return
        end = datetime.now(timezone.utc)
        ending = {"status": exit_code, "message": f"{reason}; recorded by its job"}
        with suppress(ValueError):
            ending["signal"] = signal.Signals(exit_code - 128).name
        metadata.update(state=state, exit=ending, end_time=end.isoformat(timespec="milliseconds"))
        with suppress(KeyError, TypeError, ValueError):
            start = datetime.fromisoformat(metadata["start_time"])
            metadata["elapsed_s"] = round((end - start).total_seconds(), 3)
        temporary = file.with_name(f".{uuid.uuid4().hex[:8]}.partial.{file.name}")
        try:
            temporary.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _file(path: Path, number: int | str, suffix: str) -> Path:
    return path.with_name(f"{path.stem}{number}{suffix}")


def _has_inode(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.stem}.lock").open("a") as lock:
        # A file system without locks (ENOLCK) gets the renames alone.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
