"""The launch directory: what was launched, and what has happened since.

::

    <launches>/20261122-141530-mini_an4-asr/     0700
    ├── launch.json          command line, plan, jobs, versions; written before submitting
    ├── configs.json         what the configs came to, secrets masked
    ├── events/launch.jsonl  submitted, released, cancel_requested: by launcher processes
    ├── events/<stage>.jsonl waiting, started, ended: by the job of that stage
    ├── outputs/<stage>.json what a stage left: files, sizes, times
    ├── snapshot/            the code as it was
    ├── inside/, home/       what containers see: the guard, and a home
    ├── reserve              room for the last words of stages, should the disk be full
    └── submitit/            what submitit keeps: pickles and the job process's own output

An event is one JSON line written by one ``write`` call to a file opened for appending (two on a
disk that has just become full), so writers never mix and a reader at any moment, in any process,
sees whole events (and at worst a last line half-written by a machine that crashed, which is skipped
and reported).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from launcher.errors import RecordError
from launcher.printable import harmless

SCHEMA = 1
LAUNCH = "launch"
RESERVE, _RESERVE_BYTES = "reserve", 32 * 1024
_JOB_FIELDS = ("stage", "output", "log", "metadata")
_NUMBER, _OPTIONAL_NUMBER = (int, float), (int, type(None))
# What an event has to have to be a whole one.
_EVENT_FIELDS: dict[str, dict[str, Any]] = {
    "submitted": {"stage": str, "job_id": str},
    "cancel_requested": {"stages": list},
    "waiting": {"upstream": str},
    "requeued": {"reason": str},
    "rank_ended": {"rank": int, "state": str},
    "carried": {"launch": str, "state": str, "reason": str, "exit_code": _OPTIONAL_NUMBER},
    "ended": {"state": str, "reason": str, "exit_code": _OPTIONAL_NUMBER},
}
_PROCESS_FIELDS = {"pid": int, "start_ticks": int, "boot_id": str, "host": str}


@dataclass(frozen=True)
class Journal:
    """What a journal holds: its whole events, in the order they were written."""

    events: list[dict[str, Any]]
    num_damaged: int = 0

    @cached_property
    def submissions(self) -> dict[str, dict[str, Any]]:
        """The last submission of each stage."""
        return {each["stage"]: each for each in self.events if each["event"] == "submitted"}

    @cached_property
    def cancelled_stages(self) -> frozenset[str]:
        """The stages that somebody asked to cancel."""
        asked = (each["stages"] for each in self.events if each["event"] == "cancel_requested")
        return frozenset(str(stage) for stages in asked for stage in stages)


@dataclass(frozen=True)
class LaunchRecords:
    """The launch directory at ``directory``."""

    directory: Path
    # Each journal with the identity, size and time of the file by which it was read: a launch of
    # many stages asks for the same ones again and again.
    _read: dict[str, tuple[object, Journal]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @classmethod
    def create(cls, directory: Path) -> LaunchRecords:
        """Make a launch directory, which must not exist yet.

        Raises:
            RecordError: it cannot be made.
        """
        try:
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)
        except FileExistsError as error:
            raise RecordError(
                f"another launch has just made {directory}. Type the command once more."
            ) from error
        except OSError as error:
            raise RecordError(
                f"cannot write launch records under {directory.parent}: {error.strerror}. "
                "Choose another folder with launches_dir=PATH."
            ) from error
        try:
            (directory / "events").mkdir(mode=0o700)
            with open(directory / RESERVE, "xb", opener=_private) as reserve:
                reserve.write(os.urandom(_RESERVE_BYTES))  # zeros may take up no room
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)  # nothing half-written
            raise RecordError(
                f"cannot write {directory}: {error.strerror}. Make room, or choose another folder "
                "with launches_dir=PATH."
            ) from error
        return cls(directory)

    def write_launch(self, record: Mapping[str, Any]) -> None:
        """Write ``launch.json`` whole: to a temporary file, then renamed into place."""
        temporary = self.directory / ".launch.json.tmp"
        try:
            with open(temporary, "w", opener=_private) as file:
                json.dump({"schema": SCHEMA, **record}, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.directory / "launch.json")
        except OSError as error:
            raise RecordError(f"cannot write {self.directory}: {error.strerror}") from error

    def read_launch(self) -> dict[str, Any]:
        """Read ``launch.json`` back.

        Raises:
            RecordError: it is missing, not whole, or of another schema.
        """
        path = self.directory / "launch.json"
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise RecordError(f"{path} cannot be read as a launch record: {error}") from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise RecordError(f"{path} is not a launch record of schema {SCHEMA}")
        jobs = record.get("jobs")
        texts = dict.fromkeys(_JOB_FIELDS, str)
        if not jobs or not isinstance(jobs, list) or not all(_has(job, texts) for job in jobs):
            raise RecordError(f"{path} is damaged: its list of jobs is not whole")
        if len({job["stage"] for job in jobs}) < len(jobs):
            raise RecordError(f"{path} is damaged: a stage stands in its list of jobs twice")
        launcher = record.get("launcher")
        if launcher is not None and not _has(launcher, _PROCESS_FIELDS):
            raise RecordError(f"{path} is damaged: it does not tell which process made it")
        return record

    def append(self, journal: str, event: str, **fields: Any) -> None:
        """Append one event to the journal of a stage, or to that of the launch (``LAUNCH``).

        Raises:
            RecordError: it cannot be written.
        """
        line = json.dumps({"time": time.time(), "event": event, **fields})
        path = self._journal(journal)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                begin = b"\n" if _is_cut_short(descriptor) else b""
                self._write(descriptor, begin + line.encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror}") from error

    def _write(self, descriptor: int, line: bytes) -> None:
        """Write all of a line; the reserve is given up for it where the disk is full.

        Of a line that does not fit, the kernel writes the part that does, and says so by the number
        of bytes alone.
        """
        while line:
            try:
                line = line[os.write(descriptor, line) :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                try:
                    (self.directory / RESERVE).unlink()
                except OSError:
                    raise error from None

    def events(self, journal: str) -> list[dict[str, Any]]:
        """Return the events of a journal in the order they were written; damaged lines left out."""
        return self.journal(journal).events

    def events_and_damage(self, journal: str) -> tuple[list[dict[str, Any]], int]:
        """Return the events of a journal, and how many of its lines are not whole events."""
        found = self.journal(journal)
        return found.events, found.num_damaged

    def submissions(self) -> Mapping[str, dict[str, Any]]:
        """Return, by stage, the event that tells of its submission."""
        return self.journal(LAUNCH).submissions

    def cancelled_stages(self) -> frozenset[str]:
        """Return the stages that somebody asked to cancel."""
        return self.journal(LAUNCH).cancelled_stages

    def journal(self, name: str) -> Journal:
        """Return a journal as it is now; one that is not there is empty.

        Raises:
            RecordError: it cannot be read.
        """
        path = self._journal(name)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                identity = (status.st_ino, status.st_size, status.st_mtime_ns)
                known = self._read.get(name)
                if known is not None and known[0] == identity:
                    return known[1]
                lines = file.read(status.st_size).splitlines()
        except FileNotFoundError:
            return Journal([])
        except OSError as error:
            raise RecordError(f"cannot read {path}: {error.strerror}") from error
        parsed = [_parse(line) for line in lines]
        whole = [event for event in parsed if event is not None]
        found = Journal(whole, len(parsed) - len(whole))
        self._read[name] = (identity, found)
        return found

    def _journal(self, journal: str) -> Path:
        return self.directory / "events" / f"{journal}.jsonl"


def _is_cut_short(descriptor: int) -> bool:
    """Tell whether a crash left half a line, to which the next would be glued, and lost as well."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not _has(event, {"time": _NUMBER, "event": str}):
        return None
    process = event.get("process")
    is_whole = (
        _has(event, _EVENT_FIELDS.get(event["event"], {}))
        and (process is None or _has(process, _PROCESS_FIELDS))
        and isinstance(event.get("attempt", 0), int)
    )
    if not is_whole:
        return None
    reason = event.get("reason")  # it may quote a stage
    return {**event, "reason": harmless(reason)} if isinstance(reason, str) else dict(event)


def _has(value: Any, types: Mapping[str, Any]) -> bool:
    """Tell whether a value is a mapping that has these fields, of these types."""
    return isinstance(value, dict) and all(
        name in value and isinstance(value[name], kind) for name, kind in types.items()
    )
