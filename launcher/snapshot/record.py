"""What the record of a launch says of its code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.printable import printable
from launcher.snapshot import git as git_tree
from launcher.snapshot.copy import Contents, digest_of
from launcher.snapshot.plan import CodeRoot, SnapshotPlan

MAX_NAMED = 200


def describe(root: CodeRoot, number: int, contents: Contents) -> dict[str, Any]:
    """Return what was taken of a code root, and where its repository stood, JSON-able.

    Args:
        root: the root.
        number: its place among the roots.
        contents: all that was taken.
    """
    mine = [(entry, content) for entry, content in contents if entry.root == number]
    untracked = [entry.name for entry, _ in mine if not entry.tracked]
    record: dict[str, Any] = {
        "path": str(root.path),
        "mode": root.mode,
        "files": len(mine),
        "bytes": sum(content.size for _, content in mine),
        "digest": digest_of(mine),
    }
    if root.mode != "git":
        return record
    states = [_state(root, folder) for folder in (root.path, *root.nested)]
    changed = [name for state in states for name in state.pop("changed")]
    return {
        **record,
        **states[0],
        "dirty": bool(changed or untracked),
        "num_changed": len(changed),
        "changed": [printable(name) for name in changed[:MAX_NAMED]],
        "num_untracked": len(untracked),
        "untracked": [printable(name) for name in untracked[:MAX_NAMED]],
        "nested": states[1:],
    }


def commits(plan: SnapshotPlan) -> dict[str, str]:
    """Return the commit of each code root that git knows, with ``-dirty`` where files differ."""
    found = {}
    for number, root in enumerate(plan.roots):
        if root.mode == "git" and (commit := (state := _state(root, root.path))["commit"]):
            own = (each for each in plan.entries if each.root == number)
            is_dirty = state["changed"] or any(not each.tracked for each in own)
            found[str(root.path)] = f"{commit}-dirty" if is_dirty else commit
    return found


def _state(root: CodeRoot, folder: Path) -> dict[str, Any]:
    try:
        state = git_tree.read_state(folder)
    except git_tree.GitFailed as error:
        return {
            "path": str(folder),
            "commit": None,
            "branch": None,
            "changed": [],
            "error": str(error),
        }
    changed = [_below(root, folder) + name for name in state.changed]
    return {"path": str(folder), "commit": state.commit, "branch": state.branch, "changed": changed}


def write_diff(roots: Sequence[CodeRoot], records: Sequence[dict[str, Any]], path: Path) -> bool:
    """Write what differs from the commits, each work tree by itself; tell whether anything does.

    Args:
        roots: the code roots.
        records: what :func:`describe` says of each.
        path: the file to be written, readable by its owner alone.
    """
    if not any(record.get("dirty") for record in records):
        return False
    with open(path, "wb", opener=private) as file:
        for root, record in zip(roots, records, strict=True):
            for folder in (root.path, *root.nested) if record.get("dirty") else ():
                commit = next(
                    each["commit"]
                    for each in (record, *record["nested"])
                    if each["path"] == str(folder)
                )
                file.write(f"# {printable(str(folder))} at {commit}\n".encode())
                if folder == root.path:
                    for name in record["untracked"]:
                        file.write(f"# untracked: {name}\n".encode())
                file.flush()
                if commit is None:
                    continue
                try:
                    git_tree.write_diff(folder, file, below=_below(root, folder))
                except git_tree.GitFailed as error:
                    file.write(f"# not whole: {printable(str(error))}\n".encode())
    return True


def _below(root: CodeRoot, folder: Path) -> str:
    return "" if folder == root.path else f"{folder.relative_to(root.path)}/"


def private(path: str, flags: int) -> int:
    """Open a file that only its owner can read; for ``open(opener=)``."""
    return os.open(path, flags, 0o600)
