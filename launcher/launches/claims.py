"""Who writes to an experiment's folders: one launch at a time, or several, each after the others.

::

    <exp_dir>/.launch.claim.json    {"schema": 1, "holders": [{"launch": "/…/20261122-141530-asr",
                                     "stages": […], "user": …, "host": …, "launcher": {…}}, …]}

At submission, before anything is queued, a launch puts its name into the claim of every folder that
its stages write to. Nobody takes it out: a launch that has ended, as its own records and its
cluster tell, holds nothing any more, and the next one replaces it. So no kill leaves a folder
locked. A launch that is queued behind others stands after them.

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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.clusters.base import Cluster, ForegroundCluster, NamedCluster
from launcher.display.render import short_path
from launcher.errors import ClaimError, LauncherError, RecordError
from launcher.launch import Launch
from launcher.launches import cluster_and_grace, command_on
from launcher.processes.identity import ProcessId
from launcher.recorded.files import read_json
from launcher.recorded.kinds import list_of, record
from launcher.recorded.schemas import HOLDER
from launcher.records import LaunchRecords
from launcher.status import JobStatus, chain_status

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
        return cls(launch.directory, stages, _user(), socket.gethostname(), own)

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


@dataclass(frozen=True)
class Standing:
    """What could be told of a launch that stands in a claim.

    Attributes:
        is_open: whether it may still write; True where that cannot be told.
        chain: its stages; empty where they cannot be told.
        cluster: that it was handed to.
        doubt: why nothing sure can be told of it.
    """

    is_open: bool
    chain: tuple[JobStatus, ...] = ()
    cluster: Cluster | None = None
    doubt: str = ""


def folders_of(launch: Launch) -> list[Path]:
    """Return the folders that the stages of a launch write to."""
    stages = {job.stage for job in launch.jobs}
    logs = [stage.log_dir for stage in launch.plan.stages if stage.name in stages]
    exp_dir = [launch.plan.exp_dir] if launch.plan.exp_dir else []
    return sorted({folder.resolve() for folder in [*exp_dir, *logs]})


def refusal(launch: Launch) -> str | None:
    """Say why a launch would be refused that does not queue; nothing is claimed."""
    try:
        for folder in folders_of(launch):
            for holder in _read(folder):
                if (standing := _standing(holder)).is_open:
                    return _why_held(folder, holder, standing)
    except ClaimError as error:
        return str(error)
    return None


def claim(launch: Launch, cluster: Cluster, *, queue: bool) -> Launch:
    """Claim the folders of a launch whose directory has been made; return it as it may go on.

    Args:
        launch: what is about to be submitted.
        cluster: where.
        queue: whether it may be queued behind the launches that write there.

    Returns:
        The launch, whose first job waits for those that still write to one of its folders.

    Raises:
        ClaimError: another launch writes there, and this one is not to be queued, or cannot be.
        RecordError: a claim cannot be written.
    """
    own = Holder.of(launch)
    with ExitStack() as stack:
        folders = [each for each in folders_of(launch) if _is_writable(each)]
        for folder in folders:  # in one order everywhere, so that two cannot wait for each other
            stack.enter_context(_locked(folder))
        there = {folder: os.path.lexists(folder / CLAIM) for folder in folders}
        found = {folder: _read(folder) for folder in folders}
        holders = {each.directory: each for held in found.values() for each in held}
        standings = {directory: _standing(holder) for directory, holder in holders.items()}
        still_open = {
            folder: [each for each in held if standings[each.directory].is_open]
            for folder, held in found.items()
        }
        for folder, held in still_open.items():
            for holder in held:
                if not queue:
                    raise ClaimError(_why_held(folder, holder, standings[holder.directory]))
                _check_queue(launch, cluster, folder, holder, standings[holder.directory])
        written: list[Path] = []
        try:
            for folder, held in still_open.items():
                _write(folder, [*held, own], is_new=not there[folder])
                written.append(folder)
        except BaseException:
            for folder in written:
                _take_out(folder, launch.directory)
            raise
    behind = dict.fromkeys(each.directory for held in still_open.values() for each in held)
    first, *rest = launch.jobs
    return replace(launch, jobs=(replace(first, behind=tuple(behind)), *rest))


def release(launch: Launch) -> None:
    """Take a launch, of which nothing was submitted, out of the claims that it stands in."""
    for folder in folders_of(launch):
        with suppress(LauncherError, OSError):
            if (folder / CLAIM).exists():
                with _locked(folder):
                    _take_out(folder, launch.directory)


def _standing(holder: Holder) -> Standing:
    directory, is_here = holder.directory, holder.host == socket.gethostname()
    records = LaunchRecords(directory)
    try:
        if not directory.is_dir():
            # Of another host's own disk nothing can be seen from here.
            if is_here or directory.parent.is_dir():
                return Standing(False)
            return Standing(True, doubt=f"{short_path(directory)} cannot be seen on this host")
        if not (directory / "launch.json").exists():
            return Standing(holder.launcher.is_alive())
        chain = chain_status(records)
        if all(status.has_ended for status in chain):
            return Standing(False)
        cluster, _ = cluster_and_grace(records)
        chain = chain_status(records, cluster)
        is_open = not all(status.has_ended for status in chain)
        return Standing(is_open, tuple(chain), cluster, _unasked(cluster) if is_open else "")
    except RecordError as error:
        return Standing(True, doubt=str(error))
    except OSError as error:  # another person's, as a rule
        return Standing(True, doubt=f"cannot look into {short_path(directory)}: {error.strerror}")


def _unasked(cluster: Cluster) -> str:
    try:
        if isinstance(cluster, NamedCluster):
            cluster.check_reach()
    except LauncherError as error:
        return str(error).rstrip(".")
    return ""


def _why_held(folder: Path, holder: Holder, standing: Standing) -> str:
    """Say which launch writes to a folder, how far it is, and what can be done."""
    who = "" if holder.user == _user() else f" of {holder.user}'s"
    said = f"launch {short_path(holder.directory)}{who} writes to {folder}"
    left = [f"{each.stage} is {each.state}" for each in standing.chain if not each.has_ended]
    if standing.doubt:
        return (
            f"{said}, and whether it has ended cannot be told: {standing.doubt.rstrip('.')}. If it "
            f"has, remove {folder / CLAIM} and type the command once more."
        )
    is_said = f": {', '.join(left or ['it is being submitted'])}"
    return (
        f"{said}{is_said}. Wait until it has ended, have this one wait for it with --queue, "
        f"or end it: {command_on('cancel', LaunchRecords(holder.directory))}"
    )


def _check_queue(
    launch: Launch, cluster: Cluster, folder: Path, holder: Holder, standing: Standing
) -> None:
    """Refuse to queue behind a launch of which the end could not be awaited.

    Raises:
        ClaimError: it could not.
    """
    if isinstance(cluster, ForegroundCluster):
        raise ClaimError(
            f"cluster {cluster.name} does not queue. {_why_held(folder, holder, standing)}"
        )
    if standing.doubt:
        raise ClaimError(_why_held(folder, holder, standing))
    if not standing.chain:
        raise ClaimError(
            f"launch {short_path(holder.directory)} is just being submitted. Type the command once "
            "more."
        )
    there = standing.cluster.name if standing.cluster is not None else "?"
    if there != cluster.name:
        raise ClaimError(
            f"on {cluster.name} nothing can be queued behind a launch on {there}. "
            f"{_why_held(folder, holder, standing)}"
        )


def _read(folder: Path) -> list[Holder]:
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


def _write(folder: Path, holders: Sequence[Holder], *, is_new: bool) -> None:
    """Write a claim whole; one that is new does not replace what another has just written."""
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


def _take_out(folder: Path, directory: Path) -> None:
    left = [each for each in _read(folder) if each.directory != directory]
    if left:
        _write(folder, left, is_new=False)
    else:
        (folder / CLAIM).unlink(missing_ok=True)


def _is_writable(folder: Path) -> bool:
    """Make a folder where it is missing; where that is denied, no stage can write to it either."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
