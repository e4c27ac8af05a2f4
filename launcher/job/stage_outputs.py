"""What a stage has left in its folder: recorded by its job, and looked at again before a resume.

::

    <launch>/outputs/<stage>.json   {"schema": 1, "folder": …, "files": {name: [size, mtime_ns]}}

Of more than :data:`MAX_FILES` files there is only their number and size. What a stage has written
is told from what was there by the time at which its raw output was opened: both are times (ctime)
of the same file server, whose clock need not be that of the node; what is unpacked keeps an old
mtime.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import RecordError
from launcher.job.stage_files import SUFFIXES
from launcher.printable import printable
from launcher.recorded.files import read_json
from launcher.recorded.schemas import OUTPUTS
from launcher.records import LaunchRecords
from launcher.snapshot.tree import CACHES

SCHEMA = 1
OUTPUTS_DIR = "outputs"
MAX_FILES = 20_000
MAX_COUNTED = 500_000


@dataclass(frozen=True)
class Outputs:
    """Files of a stage.

    Attributes:
        folder: that the recipe names for the stage.
        files: name in it to size in bytes and time of the last change in ns; None of too many.
        num_files: how many there are.
        num_bytes: of all of them.
    """

    folder: Path
    files: Mapping[str, tuple[int, int]] | None
    num_files: int
    num_bytes: int

    def to_record(self) -> dict[str, Any]:
        """Return them as JSON-able values."""
        return {
            "schema": SCHEMA,
            "folder": str(self.folder),
            "num_files": self.num_files,
            "num_bytes": self.num_bytes,
            "files": None if self.files is None else {n: list(f) for n, f in self.files.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Outputs:
        """Read back what ``to_record`` gave.

        Raises:
            Unfit: it is not whole.
        """
        known = OUTPUTS(record)
        files = known["files"]
        return cls(
            folder=Path(known["folder"]),
            files=None if files is None else {name: tuple(told) for name, told in files.items()},
            num_files=known["num_files"],
            num_bytes=known["num_bytes"],
        )


def list_outputs(folder: Path, others: Collection[Path], *, since_ns: int = 0) -> Outputs:
    """Return what is in a stage's folder.

    Args:
        folder: the stage's.
        others: of the other stages, which are left out where they are in it.
        since_ns: files that were last changed before, by their ctime, are left out.
    """
    files: dict[str, tuple[int, int]] | None = {}
    num_files = num_bytes = 0
    for name, status in _walk(str(folder), "", {str(each) for each in others}):
        if status.st_ctime_ns < since_ns:
            continue
        num_files, num_bytes = num_files + 1, num_bytes + status.st_size
        if num_files == MAX_COUNTED:
            break
        if num_files > MAX_FILES:
            files = None
        if files is not None:
            files[name] = (status.st_size, status.st_mtime_ns)
    return Outputs(folder, files, num_files, num_bytes)


def write_outputs(records: LaunchRecords, stage: str, outputs: Outputs) -> None:
    """Record a stage's outputs in its launch, whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    folder = records.directory / OUTPUTS_DIR
    folder.mkdir(mode=0o700, exist_ok=True)
    partial = folder / f".{stage}.json.tmp"
    with open(partial, "w", encoding="utf-8", opener=_private) as file:
        json.dump(outputs.to_record(), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / f"{stage}.json")


def read_outputs(records: LaunchRecords, stage: str) -> Outputs | None:
    """Return the outputs of a stage; None when none are on record.

    Raises:
        RecordError: the record cannot be read.
    """
    path = records.directory / OUTPUTS_DIR / f"{stage}.json"
    try:
        return Outputs.from_record(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as the outputs of a stage: {error}") from error


def lost_outputs(recorded: Outputs, later: Sequence[Outputs] = ()) -> list[str]:
    """Name the files that are not as a stage left them: ``exp/model.bin (gone)``.

    Args:
        recorded: what the stage left.
        later: what stages after it left; those may write to the same folder.
    """
    if recorded.files is None:
        now = list_outputs(recorded.folder, ())
        if now.num_files >= recorded.num_files:
            return []
        return [f"{recorded.folder} ({now.num_files} files; there were {recorded.num_files})"]
    left = [(each.folder, each.files) for each in later if each.files]
    lost = []
    for name, told in recorded.files.items():
        path = recorded.folder / name
        try:
            status = path.lstat()
        except OSError:
            lost.append(f"{printable(str(path))} (gone)")
            continue
        found = (status.st_size, status.st_mtime_ns)
        if found != told and found not in (_of(path, folder, files) for folder, files in left):
            lost.append(f"{printable(str(path))} (changed)")
    return lost


def _of(path: Path, folder: Path, files: Mapping[str, tuple[int, int]]) -> tuple[int, int] | None:
    return files.get(str(path.relative_to(folder))) if path.is_relative_to(folder) else None


def _walk(
    folder: str, prefix: str, others: Collection[str]
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is in a folder but logs, hidden files, caches, and the folders of others."""
    try:
        with os.scandir(f"{folder}/{prefix}") as entries:
            found = sorted(entries, key=lambda each: each.name)
    except OSError:  # nothing was written, or it is being deleted
        return
    for entry in found:
        name = prefix + entry.name
        if entry.name.startswith(".") or entry.name in CACHES:
            continue
        if entry.is_dir(follow_symlinks=False):
            if f"{folder}/{name}" not in others:
                yield from _walk(folder, f"{name}/", others)
        elif not entry.name.endswith(SUFFIXES):
            try:
                yield name, entry.stat(follow_symlinks=False)
            except OSError:
                continue


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
