"""The code as it was at submission.

A stage in a container sees the tree at its own path, writable, and over it, read-only, a copy of
the code that was made when the launch was submitted: editing while a job is queued changes nothing,
and what a stage writes beside its code lands in the tree. Without a container the stage runs from
the tree, and :func:`changed_since` says what was edited since.

::

    <directory>/               0700
    ├── manifest.json          of every file: mode, SHA-256, size and time in the tree
    ├── 0/…                    what lies below the first code root, under the same names
    └── 1/…
    <directory>.diff           the changes since the last commit

A folder mounted as a whole may be edited at will, a running stage sees none of it. A file that is
mounted by itself is safe while the job is queued; where it is replaced by a renaming (``git
checkout``, most editors) while the stage runs, Linux takes the mount away (since 3.18, commit
8ed936b5671b), and the stage sees the new file from then on.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError, RecordError
from launcher.printable import printable
from launcher.recorded.files import read_json
from launcher.recorded.schemas import manifest
from launcher.snapshot.copy import Content, Contents, Vanished, digest_of, read_all, read_content
from launcher.snapshot.plan import SnapshotPlan, plan_snapshot
from launcher.snapshot.record import describe, private, write_diff

__all__ = [
    "SnapshotPlan",
    "changed_since",
    "content_digest",
    "plan_snapshot",
    "take_snapshot",
    "write_manifest",
]

SCHEMA = 1
MANIFEST = "manifest.json"


def take_snapshot(plan: SnapshotPlan) -> dict[str, Any]:
    """Copy the code, whole or not at all, and return the record of it, JSON-able.

    A plan of mode ``none`` is not copied: its manifest alone is written.

    Raises:
        RecordError: it cannot be copied there.
        LauncherError: the code changed while it was copied.
    """
    return _write(plan, copying=plan.mode != "none")


def write_manifest(plan: SnapshotPlan) -> dict[str, Any]:
    """Write the manifest of the code without copying it; return the record.

    Raises:
        RecordError: it cannot be written.
        LauncherError: the code changed while it was read.
    """
    return _write(plan, copying=False)


def content_digest(plan: SnapshotPlan) -> str:
    """Return the digest that the record would have, without writing anything.

    Raises:
        LauncherError: the code changed while it was read, or cannot be read.
    """
    return digest_of(_read(plan, None))


def changed_since(record: Mapping[str, Any], *, most: int = 20) -> list[str]:
    """Name the files of the code that are not as they were: edited, deleted, executable or not.

    Names are relative to the first code root, those of others absolute. Files added since are not
    looked for.

    Args:
        record: what :func:`take_snapshot` or :func:`write_manifest` returned.
        most: names at most; the last one then says how many more there are.

    Raises:
        RecordError: the manifest cannot be read.
    """
    path = Path(record["manifest"])
    try:
        roots, entries = manifest(read_json(path))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read as the manifest of a snapshot: {error}"
        ) from error
    known = [
        (root, name, Content(mode, sha256, size, mtime_ns))
        for root, name, mode, sha256, size, mtime_ns in entries
    ]
    changed = []
    for root, name, content in known:
        difference = _difference(os.path.join(roots[root], name), content)  # noqa: PTH118
        if difference is not None:
            shown = name if root == 0 else f"{roots[root]}/{name}"
            changed.append(printable(shown) + difference)
    more = len(changed) - most
    return [*changed[:most], *([f"{more} more"] if more > 0 else [])]


def _difference(path: str, content: Content) -> str | None:
    try:
        status = os.lstat(path)
        if (status.st_size, status.st_mtime_ns) == (content.size, content.mtime_ns):
            is_executable = bool(status.st_mode & 0o100)
            if content.mode == "120000" or is_executable == (content.mode == "100755"):
                return None
        now = read_content(path)
    except (FileNotFoundError, NotADirectoryError, Vanished):
        return " (deleted)"
    except (OSError, LauncherError):
        return " (cannot be read)"
    return None if (now.mode, now.sha256) == (content.mode, content.sha256) else ""


def _write(plan: SnapshotPlan, *, copying: bool) -> dict[str, Any]:
    directory = plan.directory
    partial = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.partial")
    diff = directory.with_name(f"{directory.name}.diff")
    if directory.exists():
        raise RecordError(f"{printable(str(directory))} is there already; a snapshot is made once")
    whole = False
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        contents = _read(plan, partial if copying else None)
        roots = [describe(root, number, contents) for number, root in enumerate(plan.roots)]
        has_diff = write_diff(plan.roots, roots, diff)
        _write_manifest(plan, contents, partial / MANIFEST)
        partial.rename(directory)
        whole = True
    except OSError as error:
        raise RecordError(
            f"cannot copy the code to {directory}: {error.strerror}"
            f"{f' ({printable(str(error.filename))})' if error.filename else ''}. "
            "Choose another folder with launches_dir=PATH, or launch with snapshot=none."
        ) from error
    finally:
        if not whole:
            shutil.rmtree(partial, ignore_errors=True)
            diff.unlink(missing_ok=True)
    return {
        "mode": plan.mode,
        "copied": copying,
        "directory": str(directory),
        "manifest": str(directory / MANIFEST),
        "diff": str(diff) if has_diff else None,
        "digest": digest_of(contents),
        "files": len(contents),
        "bytes": sum(content.size for _, content in contents),
        "mounts": len(plan.mounts) if copying else 0,
        "roots": roots,
    }


def _read(plan: SnapshotPlan, copy_to: Path | None) -> Contents:
    folders = [
        str(mount.source.relative_to(plan.directory))
        for mount in plan.mounts  # one whose last file vanishes meanwhile is mounted all the same
        if mount.target.is_dir()
    ]
    alone = {str(mount.target) for mount in plan.mounts}
    return read_all(plan.entries, copy_to, folders=folders, needed=alone)


def _write_manifest(plan: SnapshotPlan, contents: Contents, path: Path) -> None:
    entries = [
        [entry.root, entry.name, each.mode, each.sha256, each.size, each.mtime_ns]
        for entry, each in contents
    ]
    roots = [str(root.path) for root in plan.roots]
    with open(path, "w", encoding="utf-8", opener=private) as file:
        json.dump({"schema": SCHEMA, "roots": roots, "entries": entries}, file)
