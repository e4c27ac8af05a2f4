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

from launcher.errors import DamagedLaunch, RecordError
from launcher.recorded.events import event as read_event
from launcher.recorded.files import open_regular, parse_json, read_json
from launcher.recorded.kinds import fitting
from launcher.recorded.schemas import JOB as JOB_FIELDS
from launcher.recorded.schemas import JOBS, LAUNCHER
from launcher.recorded.schemas import LAUNCH as LAUNCH_FIELDS
from launcher.recorded.unfit import Unfit

SCHEMA = 1
LAUNCH = "launch"
_OF_LAUNCH, _MOST_NAMED = "launch.json: ", 3
RESERVE, _RESERVE_BYTES = "reserve", 32 * 1024


@dataclass(frozen=True)
class Journal:
    """What a journal holds: its whole events, in the order they were written.

    ``first_damage`` says what is wrong with the first line that is JSON, and no whole event.
    """

    events: list[dict[str, Any]]
    num_damaged: int = 0
    first_damage: str = ""

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
        """Read ``launch.json`` back, without the fields in it that are damaged.

        Raises:
            DamagedLaunch: it is missing, not whole, or of another schema.
        """
        return self.launch_and_damage()[0]

    def whole_launch(self) -> dict[str, Any]:
        """Read ``launch.json`` to run something from it, for which all of it has to be whole.

        Raises:
            RecordError: it is not.
        """
        record, damage = self.launch_and_damage()
        planned = {stage["name"] for stage in record.get("plan", {}).get("stages", ())}
        damage += [
            f"jobs[{number}].stage is no stage of the plan"
            for number, job in enumerate(record["jobs"])
            if planned and job["stage"] not in planned
        ]
        if damage:
            raise RecordError(
                f"nothing is run from {self.directory / 'launch.json'}, since it is damaged: "
                f"{'; '.join(each.removeprefix(_OF_LAUNCH) for each in damage[:_MOST_NAMED])}. "
                "Mend it, or launch again with the command itself."
            )
        return record

    def launch_and_damage(self) -> tuple[dict[str, Any], list[str]]:
        """Return ``launch.json`` without the fields in it that are damaged, and what these are.

        Raises:
            DamagedLaunch: as :meth:`read_launch`.
        """
        path = self.directory / "launch.json"
        try:
            found = read_json(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise DamagedLaunch(
                self.directory, f"{path} cannot be read as a launch record: {why}"
            ) from error
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise DamagedLaunch(self.directory, f"{path} is not a launch record of schema {SCHEMA}")
        try:
            jobs = JOBS(found.get("jobs"))
        except Unfit as error:
            problem = error.below("jobs")
            raise DamagedLaunch(
                self.directory, f"{path} is damaged: its list of jobs is not whole: {problem}"
            ) from error
        if not jobs:
            raise DamagedLaunch(self.directory, f"{path} is damaged: its list of jobs is empty")
        if len({job["stage"] for job in jobs}) < len(jobs):
            raise DamagedLaunch(
                self.directory, f"{path} is damaged: a stage stands in its list of jobs twice"
            )
        try:
            LAUNCHER(found.get("launcher"))
        except Unfit as error:
            problem = error.below("launcher")
            raise DamagedLaunch(
                self.directory,
                f"{path} is damaged: it does not tell which process made it: {problem}",
            ) from error
        record, unfit = fitting({**found, "jobs": jobs}, LAUNCH_FIELDS)
        for number, job in enumerate(jobs):
            record["jobs"][number], more = fitting(job, JOB_FIELDS)
            unfit += [each.below(f"jobs[{number}]") for each in more]
        return record, [f"{_OF_LAUNCH}{each}" for each in unfit]

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
            with open_regular(path) as file:
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
        whole = [each for each in parsed if isinstance(each, dict)]
        said = (
            f"{number}: {each}" for number, each in enumerate(parsed, 1) if isinstance(each, str)
        )
        found = Journal(whole, len(parsed) - len(whole), next(said, ""))
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


def _parse(line: bytes) -> dict[str, Any] | str | None:
    """Return an event; what is wrong with it where it is not whole; None of what is no JSON."""
    try:
        return read_event(parse_json(line))
    except Unfit as error:
        return str(error)
    except ValueError:
        return None
