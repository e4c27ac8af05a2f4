"""The files of a stage run beside each other: ``<stage>.log``, ``.out`` and ``.metadata.json``.

The stage framework writes the log and the metadata (``espnet3/utils/stage_files.py``), the job
writes the raw output. Whoever comes first gives the files of an earlier run their number, all three
the same one, under the same lock; a run's own output is known by its inode, whatever it is called.

The job writes metadata as well: before the stage starts, so that a stage which never does leaves
word of why, and when it has ended. What it knows stands there under ``job``. A framework that finds
``job.output_inode`` to be its own output's writes what it knows over the rest; one that keeps no
metadata leaves the job's.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

LOG, METADATA, OUTPUT = ".log", ".metadata.json", ".out"
SUFFIXES = (LOG, METADATA, OUTPUT)
# Tells the stage framework which raw output is this run's own, and stays where it is.
OUTPUT_INODE = "LAUNCHER_OUTPUT_INODE"
SCHEMA = 1  # of the metadata, as espnet3/utils/metadata.py has it
STARTING, RUNNING = "starting", "running"


def open_output(path: Path) -> IO[bytes]:
    """Open the raw output file of a run; the files of an earlier run are kept under a number.

    Raises:
        OSError: the file or its folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        _rejoin_log(path)
        _put_aside(path, SUFFIXES)
        return path.open("xb")


def locate_output(path: Path, inode: int) -> Path | None:
    """Return the name that a run's raw output has by now; None when it was deleted."""
    if _inode(path) == inode:
        return path
    name = re.compile(rf"{re.escape(path.stem)}\d+\.out")
    numbered = (each for each in path.parent.glob("*.out") if name.fullmatch(each.name))
    return next((each for each in numbered if _inode(each) == inode), None)


def write_job_metadata(path: Path, inode: int, job: Mapping[str, Any]) -> None:
    """Leave word of a run before its stage starts: its state is ``starting``.

    Args:
        path: of the raw output when the stage started.
        inode: of the raw output; the metadata lies beside it.
        job: where the stage is to run: cluster, job id, node, image, …; JSON-able.

    Raises:
        OSError: the folder cannot be written.
    """
    update_job_metadata(path, inode, {"start_time": _now(), **job})


def update_job_metadata(path: Path, inode: int, job: Mapping[str, Any]) -> None:
    """Add to what a run's metadata says of its job; the rest of it stays as it is.

    Metadata that is not there, or not whole, is begun anew.

    Raises:
        OSError: the folder cannot be written.
    """

    def add(metadata: dict[str, Any], _output: Path) -> dict[str, Any]:
        return _with_job(metadata or _begun(path, job), inode, job)

    _change(path, inode, add)


def close_metadata(
    path: Path,
    inode: int,
    *,
    state: str,
    exit_code: int | None,
    reason: str,
    job: Mapping[str, Any] | None = None,
) -> None:
    """Say how a stage ended that did not say so itself: it was killed, or keeps no metadata.

    Metadata with a state of its own keeps it, and only what it says of the job is brought up to
    date: ``end_time``, ``exit_code``, ``signal``, and what else is given.

    Args:
        path: of the raw output when the stage started.
        inode: of the raw output; the metadata beside it is the run's.
        state: ``done``, ``failed`` or ``interrupted``.
        exit_code: as a shell has it; None for a stage that never started.
        reason: in words.
        job: what is known of the job at the end, laid over what was known before. None where the
            job keeps no metadata: then missing metadata stays missing.

    Raises:
        OSError: the folder cannot be written.
    """
    end = datetime.now(timezone.utc)
    ending: dict[str, Any] = {"end_time": end.isoformat(timespec="milliseconds")}
    ending |= {"exit_code": exit_code, **_signal(exit_code)}

    def close(metadata: dict[str, Any], output: Path) -> dict[str, Any] | None:
        if job is None and metadata.get("state") != RUNNING:
            return None
        changed = metadata or _begun(path, job or {})
        if job is not None:
            log_inode = _inode(output.with_suffix(LOG))
            changed = _with_job(changed, inode, {**ending, "log_inode": log_inode, **job})
        if changed.get("state") not in (STARTING, RUNNING):
            return changed
        message = "; ".join(filter(None, [reason, "recorded by its job"]))
        told = {"status": exit_code, "message": message, **_signal(exit_code)}
        changed = {**changed, "state": state, "exit": told, "end_time": ending["end_time"]}
        with suppress(KeyError, TypeError, ValueError):
            start = datetime.fromisoformat(changed["start_time"])
            changed["elapsed_s"] = round((end - start).total_seconds(), 3)
        return changed

    _change(path, inode, close)


def _change(
    path: Path, inode: int, change: Callable[[dict[str, Any], Path], dict[str, Any] | None]
) -> None:
    """Replace a run's metadata by what ``change`` makes of it and of the name of its output."""
    with _lock(path):
        output = locate_output(path, inode)
        if output is None:  # somebody deleted the run's files: they are not to come back
            return
        file = output.with_suffix(METADATA)
        changed = change(_read(file), output)
        if changed is not None:
            _write(file, changed)


def _begun(path: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    stage, start_time = job.get("stage", path.stem), job.get("start_time") or _now()
    return {"schema": SCHEMA, "stage": stage, "state": STARTING, "start_time": start_time}


def _with_job(metadata: dict[str, Any], inode: int, job: Mapping[str, Any]) -> dict[str, Any]:
    known = metadata.get("job")
    known = known if isinstance(known, dict) else {}
    return {**metadata, "job": {**known, **job, "output_inode": inode}}


def _signal(exit_code: int | None) -> dict[str, str]:
    with suppress(TypeError, ValueError):
        return {"signal": signal.Signals(exit_code - 128).name}  # type: ignore[operator]
    return {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _read(file: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _write(file: Path, metadata: Mapping[str, Any]) -> None:
    temporary = file.with_name(f".{uuid.uuid4().hex[:8]}.partial.{file.name}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(metadata, indent=2, default=str) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _put_aside(path: Path, suffixes: tuple[str, ...]) -> None:
    """Give the files without a number the first number that is free."""
    number = 1
    while any(_file(path, number, suffix).exists() for suffix in SUFFIXES):
        number += 1
    for suffix in suffixes:
        with suppress(FileNotFoundError):
            _file(path, "", suffix).rename(_file(path, number, suffix))


def _rejoin_log(path: Path) -> None:
    """Give output and metadata the number of their log, if the log went without them.

    A stage framework that knows only its log renames that alone, when it is run without a launcher
    after a launched run.
    """
    job = _read(_file(path, "", METADATA)).get("job")
    log_inode = job.get("log_inode") if isinstance(job, dict) else None
    if log_inode is None or log_inode == _inode(_file(path, "", LOG)):
        return
    name = re.compile(rf"{re.escape(path.stem)}(\d+)\.log")
    for log in path.parent.glob("*.log"):
        match = name.fullmatch(log.name)
        if match and _inode(log) == log_inode:
            companions = [_file(path, match[1], suffix) for suffix in (METADATA, OUTPUT)]
            if not any(companion.exists() for companion in companions):
                for companion, suffix in zip(companions, (METADATA, OUTPUT), strict=True):
                    with suppress(FileNotFoundError):
                        _file(path, "", suffix).rename(companion)
                return
    _put_aside(path, (METADATA, OUTPUT))  # its log was deleted: another run's is not for it


def _file(path: Path, number: int | str, suffix: str) -> Path:
    return path.with_name(f"{path.stem}{number}{suffix}")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.stem}.lock").open("a") as lock:
        # A file system without locks (ENOLCK) gets the renames alone.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
