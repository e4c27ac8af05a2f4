"""Which files of the code roots are code, and how few mounts can lay a copy of them over the tree.

A folder is mounted as a whole where all that is in it is code. Where ignored files lie beside code,
or stages write, its entries are mounted one by one, so that the rest stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Made again by whoever needs them: they neither belong to the code nor stand in the way.
CACHES = frozenset(
    ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints")
)
# What snapshot=copy passes over besides.
_NEVER_COPIED = frozenset(
    (".git", ".hg", ".svn", ".bzr", ".jj", ".venv", "node_modules", ".tox", ".nox", ".launches")
)
_ENVIRONMENT_MARKS = frozenset(("pyvenv.cfg", "conda-meta"))
_LAUNCH_MARKS = frozenset(("launch.json", "events"))
# What recipes write below their own folder, by the convention of ESPnet.
_RESULTS = ("data", "downloads", "dump", "exp", "logs")
# What editors keep beside an open file, for as long as it is open, and NFS for a deleted one.
_PASSING = re.compile(r".*\.sw[a-p]|.*~|\.#.*|#.*#|\.nfs.*|4913|\.DS_Store", re.DOTALL)

# Name to what is below it; for a file or link, whether git tracks it. Where a folder took the place
# of a file or the other way round, both are listed: the file is then "" in the folder.
Node: TypeAlias = "dict[str, Node | bool]"


@dataclass(slots=True)
class Entry:
    """One file or symlink of the code.

    Attributes:
        path: in the tree.
        stored: in the snapshot, relative to its folder.
        root: number of the code root that it belongs to.
        name: relative to that root.
        size: in bytes, when it was listed.
        is_link: a symlink, which is kept as one.
        tracked: by git.
        carried: it is there for a folder mounted as a whole to look the same, and is not code.
    """

    path: str
    stored: str
    root: int
    name: str
    size: int
    is_link: bool
    tracked: bool
    carried: bool = False


@dataclass(frozen=True)
class Tree:
    """The code below an outermost root, as it is found.

    Attributes:
        entries: its files and links.
        mounts: files and folders over which the snapshot is laid, in the order of the tree.
    """

    entries: list[Entry]
    mounts: list[str]


class Outputs:
    """Folders that stages write to, and what follows from that for those around them."""

    def __init__(self, writable: Iterable[Path], roots: Sequence[Path]) -> None:
        folders = {
            path
            for each in writable
            for path in (os.path.normpath(each.absolute()), os.path.realpath(each))
        }
        recipes = {path for path in folders if Path(path, "run.py").is_file()}
        # A run.py below a recipe is a copy that a stage has left in its results.
        recipes -= {path for path in recipes if recipes.intersection(_parents(path))}
        folders |= {f"{recipe}/{name}" for recipe in recipes for name in _RESULTS}
        code = recipes.union(*map(_parents, recipes), map(str, roots))
        code = code.union(*(_parents(str(root)) for root in roots))
        self.folders = frozenset(folders - code)
        self._split = frozenset(folders.union(*map(_parents, folders)))

    def hold(self, folder: str) -> bool:
        """Tell whether stages write into this folder or somewhere below it."""
        return folder in self._split

    def contain(self, path: Path) -> bool:
        """Tell whether a path is one of the folders with results, or in one."""
        return not self.folders.isdisjoint((str(path), *_parents(str(path))))


def add(node: Node, name: str, *, tracked: bool) -> None:
    """Add a file, relative to the folder of the node."""
    *parents, last = name.split("/")
    for part in parents:
        child = node.get(part)
        if not isinstance(child, dict):
            child = node[part] = {} if child is None else {"": child}
        node = child
    child = node.get(last)
    if isinstance(child, dict):
        node, last = child, ""
    node[last] = tracked or node.get(last) is True


def walk_files(root: Path, outputs: Outputs) -> Iterator[tuple[str, int]]:
    """Yield name and size of all below a root but results, caches and environments."""
    folders = [""]
    while folders:
        prefix = folders.pop()
        entries = _scan(f"{root}/{prefix}")
        names = {entry.name for entry in entries}
        if prefix and (names & _ENVIRONMENT_MARKS or names >= _LAUNCH_MARKS):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                is_code = entry.name not in CACHES and entry.name not in _NEVER_COPIED
                if is_code and os.path.normpath(entry.path) not in outputs.folders:
                    folders.append(f"{prefix}{entry.name}/")
            elif entry.name != ".git":  # a file in a worktree or submodule
                size = _size(entry)
                if size is not None:
                    yield prefix + entry.name, size


def find_code(root: Path, node: Node, roots: Sequence[Path], outputs: Outputs) -> Tree:
    """Find what of a listing is there, and how it can be mounted.

    Args:
        root: an outermost one of the roots.
        node: what is listed below it.
        roots: all code roots.
        outputs: where stages write.
    """
    walk = _Walk({str(path): number for number, path in enumerate(roots)}, outputs, str(root))
    whole, mounts = walk.folder(str(root), node, walk.numbers[str(root)], "", in_output=False)
    return Tree(walk.entries, [str(root)] if whole else mounts)


class _Walk:
    def __init__(self, numbers: dict[str, int], outputs: Outputs, top: str) -> None:
        self.numbers, self.outputs = numbers, outputs
        self.entries: list[Entry] = []
        self._start = len(top.rstrip("/")) + 1
        self._top = numbers[top]

    def folder(
        self, path: str, node: Node, root: int, prefix: str, *, in_output: bool
    ) -> tuple[bool | None, list[str]]:
        """Add the code of one folder; return whether it may be mounted as a whole, else what may.

        None: nothing in it is code, and nothing of it would be missed.
        """
        entries = _scan(path)
        if prefix and {entry.name for entry in entries} >= _LAUNCH_MARKS and not _any_tracked(node):
            return False, []
        in_output = in_output or path in self.outputs.folders
        whole = not in_output and not self.outputs.hold(path) and bool(entries)
        is_empty, mounts, carried = True, [], []
        for entry in sorted(entries, key=lambda each: each.name):
            listed = node.get(entry.name)
            is_dir = entry.is_dir(follow_symlinks=False)
            if isinstance(listed, dict) and not is_dir:
                listed = listed.get("")
            elif isinstance(listed, dict) and entry.name in CACHES and not _any_tracked(listed):
                listed = None
            if is_dir and isinstance(listed, dict):
                number = self.numbers.get(entry.path, root)
                below = "" if number != root else f"{prefix}{entry.name}/"
                found, inside = self.folder(entry.path, listed, number, below, in_output=in_output)
                mounts += [entry.path] if found else inside
                whole, is_empty = whole and found is not False, is_empty and found is None
            elif is_dir:
                whole = whole and _is_cache(entry.path) and not self.outputs.hold(entry.path)
            elif isinstance(listed, bool) and (listed or not _is_passing(entry.name)):
                size = _size(entry)
                if size is None or (in_output and not listed):
                    whole = False
                    continue
                is_empty = False
                self._add(entry, root, prefix, size, tracked=listed)
                if not entry.is_symlink():
                    mounts.append(entry.path)
            elif entry.name == ".git" and entry.is_file(follow_symlinks=False):
                carried.append(entry)
            elif not _is_passing(entry.name):
                whole = False
        if whole:
            for entry in carried:
                self._add(entry, root, prefix, _size(entry) or 0, tracked=False, carried=True)
            return (None if is_empty else True), mounts
        return False, mounts

    def _add(
        self,
        entry: os.DirEntry[str],
        root: int,
        prefix: str,
        size: int,
        *,
        tracked: bool,
        carried: bool = False,
    ) -> None:
        self.entries.append(
            Entry(
                path=entry.path,
                stored=f"{self._top}/{entry.path[self._start :]}",
                root=root,
                name=prefix + entry.name,
                size=size,
                is_link=entry.is_symlink(),
                tracked=tracked,
                carried=carried,
            )
        )


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # deleted meanwhile, or not ours to read
        return []


def _size(entry: os.DirEntry[str]) -> int | None:
    """Return the size of a file or link; None for what is neither, or has gone."""
    try:
        if entry.is_symlink() or entry.is_file(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass
    return None


def _is_cache(folder: str) -> bool:
    """Tell whether nothing but caches is in a folder; an empty one may wait for results."""
    if os.path.basename(folder) in CACHES:  # noqa: PTH119
        return True
    entries = _scan(folder)
    return bool(entries) and all(
        entry.is_dir(follow_symlinks=False) and _is_cache(entry.path) for entry in entries
    )


def _is_passing(name: str) -> bool:
    return _PASSING.fullmatch(name) is not None


def _any_tracked(node: Node) -> bool:
    return any(_any_tracked(each) if isinstance(each, dict) else each for each in node.values())


def _parents(path: str) -> Collection[str]:
    return {str(parent) for parent in Path(path).parents}
