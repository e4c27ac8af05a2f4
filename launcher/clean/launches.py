"""Which launch directories can go: those that ended long ago, and that no other launch needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.again.fingerprint import CONFIGS_FILE
from launcher.clean.leftover import REMOVING, Leftover, is_own_folder, room_of
from launcher.clusters.base import NamedCluster
from launcher.errors import DamagedLaunch, LauncherError, RecordError
from launcher.job.copied_code import CODE_DIR
from launcher.job.stage_outputs import OUTPUTS_DIR
from launcher.launch import HOME_DIR, INSIDE_DIR, SNAPSHOT_DIR
from launcher.launches import cluster_and_grace
from launcher.records import LAUNCH, RESERVE, LaunchRecords
from launcher.status import chain_status

# What a launcher makes before it writes launch.json. One that was killed leaves no more than that.
_OF_A_SUBMISSION = frozenset(
    {
        *("events", "submitit", ".launch.json.tmp", RESERVE, CONFIGS_FILE),
        *(CODE_DIR, HOME_DIR, INSIDE_DIR, OUTPUTS_DIR, SNAPSHOT_DIR),
    }
)
# A launcher that is still copying the code is not disturbed.
_SUBMISSION_MAX_S = 24 * 3600.0


@dataclass(frozen=True)
class SeenLaunch:
    """A launch directory, as far as it matters here.

    Attributes:
        directory: the launch directory.
        last_s: when something last happened to it, in seconds since the epoch.
        refers_to: directories of launches that it names.
        damage: why its record cannot be read.
    """

    directory: Path
    last_s: float
    refers_to: frozenset[Path] = frozenset()
    damage: str = ""


def old_launches(
    folder: Path, *, older_than_s: float, keep: int, now_s: float
) -> tuple[list[Leftover], dict[Path, str]]:
    """Return the launches in a folder that can go; and why each of the others is kept."""
    found: list[Leftover] = []
    kept: dict[Path, str] = {}
    seen: list[SeenLaunch] = []
    for path in sorted(_children(folder)):
        odd = _why_odd(path)
        if odd is None:
            seen.append(look_at(path))
        elif path.is_dir() or path.is_symlink():
            left = _cut_short(path, now_s) if is_own_folder(path) else None
            if left is not None:
                found.append(left)
            else:
                kept[path] = odd
    kept |= why_kept(seen, older_than_s=older_than_s, keep=keep, now_s=now_s, why_open=open_because)
    for each in seen:
        if each.directory in kept:
            continue
        room = room_of(each.directory)
        if not room.is_whole:
            kept[each.directory] = "another file system is mounted in it"
            continue
        days = (now_s - each.last_s) / 86400
        why = f"ended {days:.0f} days ago" if days >= 1 else "has ended"
        found.append(Leftover("launch", each.directory.name, why, room.size_bytes, each.directory))
    return found, kept


def why_kept(
    seen: Sequence[SeenLaunch],
    *,
    older_than_s: float,
    keep: int,
    now_s: float,
    why_open: Callable[[Path], str],
) -> dict[Path, str]:
    """Return the launches that are to be kept, with the reason; the others can go.

    Args:
        seen: all launches of a folder.
        older_than_s: seconds for which nothing has happened to a launch that can go.
        keep: number of launches, the latest ones, that are kept whatever their age.
        now_s: the time, in seconds since the epoch.
        why_open: says of a launch directory why it has not ended; empty when it has. It may have
            to ask a scheduler, and so is asked only of those that would go.
    """
    kept: dict[Path, str] = {}
    by_age = sorted(seen, key=lambda each: (each.last_s, each.directory), reverse=True)
    for number, each in enumerate(by_age):
        if each.damage:
            kept[each.directory] = f"its state cannot be told: {each.damage}"
        elif number < keep:
            kept[each.directory] = f"one of the latest {keep}"
        elif now_s - each.last_s < older_than_s:
            kept[each.directory] = "too young"
        elif reason := why_open(each.directory):
            kept[each.directory] = reason
    refers_to = {each.directory: each.refers_to for each in seen}
    pending = list(kept)
    while pending:
        directory = pending.pop()
        for needed in refers_to.get(directory, ()):
            if needed in refers_to and needed not in kept:
                kept[needed] = f"{directory.name} refers to it"
                pending.append(needed)
    return kept


def look_at(directory: Path) -> SeenLaunch:
    """Read of a launch what is needed to tell whether it can go."""
    records = LaunchRecords(directory)
    try:
        record = records.read_launch()
        journals = [LAUNCH, *(str(job["stage"]) for job in record["jobs"])]
        events = {journal: records.events(journal) for journal in journals}
    except DamagedLaunch as error:
        return SeenLaunch(directory, 0.0, damage=error.damage)
    except RecordError as error:
        return SeenLaunch(directory, 0.0, damage=str(error))
    created = record.get("created")
    times = [each["time"] for journal in events.values() for each in journal]
    times += [created] if created is not None else []
    if not times:
        with suppress(OSError):
            times.append((directory / "launch.json").stat().st_mtime)
    named = {Path(text) for text in _texts([record, events]) if os.sep in text}
    named |= {directory.parent / text for text in _texts([record, events]) if os.sep not in text}
    return SeenLaunch(directory, max(times, default=0.0), frozenset(named - {directory}))


def open_because(directory: Path) -> str:
    """Say why a launch has not ended, or why that cannot be told; empty when it has ended."""
    records = LaunchRecords(directory)
    try:
        chain = chain_status(records)
        if not all(each.has_ended for each in chain):
            cluster, _ = cluster_and_grace(records)
            if isinstance(cluster, NamedCluster):
                cluster.check_reach()
            chain = chain_status(records, cluster)
    except LauncherError as error:
        return f"its state cannot be told: {error}"
    left = [f"{each.stage} is {each.state}" for each in chain if not each.has_ended]
    return f"it has not ended: {left[0]}" if left else ""


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"cannot look into {folder}: {error.strerror}") from error


def _why_odd(path: Path) -> str | None:
    """Say why something in the folder of launches is none that this user may remove."""
    if path.is_symlink():
        return "a link, which is not followed"
    if not is_own_folder(path):
        return "another user's"
    if path.name.endswith(REMOVING):
        return "being removed"
    file = path / "launch.json"
    return None if file.is_file() and not file.is_symlink() else "no launch directory"


def _cut_short(path: Path, now_s: float) -> Leftover | None:
    """Return what a launcher left that was killed before its launch was on record."""
    is_rest = path.name.startswith(".") and path.name.endswith(REMOVING)
    with suppress(OSError):
        entries = list(path.iterdir())
        names = {each.name for each in entries}
        is_ours = "events" in names and names <= _OF_A_SUBMISSION
        newest_s = max(each.lstat().st_mtime for each in [path, *entries])
        is_still = now_s - newest_s > _SUBMISSION_MAX_S
        if is_rest or (is_ours and is_still):
            why = "half removed" if is_rest else "its launcher was killed while it copied the code"
            room = room_of(path)
            if room.is_whole:
                return Leftover("snapshot", path.name, why, room.size_bytes, path)
    return None


def _texts(value: Any) -> Iterator[str]:
    """Return the texts in a record, wherever they stand: whatever names a launch refers to it."""
    if isinstance(value, str):
        if value and len(value) < os.pathconf("/", "PC_PATH_MAX") and "\0" not in value:
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
