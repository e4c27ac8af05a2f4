"""What a snapshot of the code would hold, and how it would be mounted. Nothing is written here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.containers.base import Mount
from launcher.errors import ConfigError
from launcher.printable import printable
from launcher.snapshot import git as git_tree
from launcher.snapshot import tree as code_tree
from launcher.snapshot.tree import Entry, Node, Outputs

MAX_BYTES = 2 * 2**30
MAX_FILES = 100_000
# Without a copy, to say what has changed is worth a second, and no more.
MAX_HASHED_BYTES = MAX_BYTES // 8
MAX_HASHED_FILES = MAX_FILES // 4
# With this many, something is amiss: the start of a container takes about a millisecond for each.
MANY_MOUNTS = 300


@dataclass(frozen=True)
class CodeRoot:
    """One of the trees.

    Attributes:
        path: its folder.
        mode: ``git`` or ``copy``: how it was found what is code; ``none`` where nothing was.
        nested: work trees inside it, such as submodules, that git knows as their own.
    """

    path: Path
    mode: str
    nested: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SnapshotPlan:
    """What a snapshot would hold, and how it would be mounted.

    Attributes:
        mode: ``git``, ``copy``, or ``none``: nothing is copied, and the manifest alone is written.
        directory: where the snapshot is to be.
        roots: the code roots, in the order given.
        entries: the files and links of the code.
        mounts: read-only, none below another; to be laid over the tree.
        notices: what the person at the terminal should know.
    """

    mode: str
    directory: Path
    roots: tuple[CodeRoot, ...]
    entries: tuple[Entry, ...]
    mounts: tuple[Mount, ...]
    notices: tuple[str, ...] = ()


def plan_snapshot(
    mode: str, roots: Sequence[Path], writable: Sequence[Path], directory: Path
) -> SnapshotPlan:
    """Find out what the code is, and how a copy of it is mounted. Nothing is written.

    Args:
        mode: ``git`` takes tracked files, and those that git does not ignore, as they lie in the
            tree; ``copy`` takes all but results, caches and environments; ``none`` nothing.
        roots: absolute paths of the code roots: a git top level, or any folder.
        writable: folders that stages write to. In the recipe's own, which has a ``run.py``, code is
            mounted entry by entry; in the others, only what git tracks, file by file.
        directory: where the snapshot is to be.

    Raises:
        ConfigError: there is too much to copy.
        LauncherError: git refuses to read a tree.
    """
    paths = list(dict.fromkeys(Path(os.path.normpath(root)) for root in roots))
    outputs = Outputs([*writable, directory], paths)
    tops = [path for path in paths if not any(path.is_relative_to(o) for o in paths if o != path)]
    nodes: dict[Path, Node] = {top: {} for top in tops}
    found, notices = [], []
    for path in paths:
        top = next(each for each in tops if path.is_relative_to(each))
        root, names = _list_code(mode, path, outputs)
        for name, tracked in names:
            code_tree.add(nodes[top], _join(path.relative_to(top), name), tracked=tracked)
        found.append(root)
        if mode == "git" and root.mode != "git":
            notices.append(
                f"{printable(str(path))} is not in a git work tree, so stages see the code in it "
                "as it is when they run. snapshot=copy copies it at submission."
            )
    if mode == "git" and all(root.mode == "none" for root in found):
        plan = plan_snapshot("none", roots, writable, directory)
        return replace(plan, notices=tuple(notices))
    trees = [code_tree.find_code(top, node, paths, outputs) for top, node in nodes.items()]
    entries = [entry for tree in trees for entry in tree.entries]
    if mode == "none":
        few = _few_enough(entries)
        return SnapshotPlan(mode, directory, tuple(found), tuple(few), (), tuple(notices))
    _check_size(mode, paths, entries)
    mounts = [
        Mount(_stored(directory, paths, top, Path(target)), Path(target), read_only=True)
        for top, tree in zip(tops, trees, strict=True)
        for target in tree.mounts
    ]
    in_git = [root.path for root in found if root.mode == "git"]
    recipes = [folder for folder in writable if any(folder.is_relative_to(each) for each in in_git)]
    notices += _about_recipes(mode, recipes, entries)
    if len(mounts) > MANY_MOUNTS:
        notices.append(_about_mounts(mounts))
    return SnapshotPlan(
        mode, directory, tuple(found), tuple(entries), tuple(mounts), tuple(notices)
    )


def _list_code(mode: str, path: Path, outputs: Outputs) -> tuple[CodeRoot, list[tuple[str, bool]]]:
    """Return how a root was read, and name and trackedness of each file of its code."""
    if mode != "copy":
        names: list[tuple[str, bool]] = []
        nested: list[Path] = []
        if _list_git(path, "", outputs, names, nested):
            return CodeRoot(path, "git", tuple(nested)), names
        if mode == "git":
            return CodeRoot(path, "none"), []
    return CodeRoot(path, "copy"), [(name, False) for name in _list_all(mode, path, outputs)]


def _list_git(
    folder: Path,
    prefix: str,
    outputs: Outputs,
    names: list[tuple[str, bool]],
    nested: list[Path],
) -> bool:
    listing = git_tree.list_files(folder)
    if listing is None:
        return False
    names += [(prefix + name, True) for name in listing.tracked]
    names += [(prefix + name, False) for name in listing.untracked]
    # A clone among results is data.
    clones = [name for name in listing.clones if not outputs.contain(folder / name)]
    for name in (*listing.submodules, *clones):
        inner = folder / name
        # A submodule that is not checked out is an empty folder.
        if not inner.is_symlink() and (inner / ".git").exists():
            nested.append(inner)
            _list_git(inner, f"{prefix}{name}/", outputs, names, nested)
    return True


def _list_all(mode: str, path: Path, outputs: Outputs) -> Iterator[str]:
    """Yield what snapshot=copy takes; for a manifest alone, nothing where that is a lot."""
    sizes: dict[str, int] = {}
    listed: list[str] = []
    num_bytes = 0
    for name, size in code_tree.walk_files(path, outputs):
        listed.append(name)
        top = name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + size
        num_bytes += size
        if mode == "none" and (num_bytes > MAX_HASHED_BYTES or len(listed) > MAX_HASHED_FILES):
            return
        if num_bytes > MAX_BYTES or len(listed) > MAX_FILES:
            raise _too_much(mode, path, sizes)
    yield from listed


def _few_enough(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return what is hashed where nothing is copied: the part that is code the most surely."""
    tracked = [entry for entry in entries if entry.tracked]
    small = [entry for entry in tracked if entry.size < 2**20]
    for some in (entries, tracked, small):
        num_bytes = sum(entry.size for entry in some)
        if num_bytes <= MAX_HASHED_BYTES and len(some) <= MAX_HASHED_FILES:
            return some
    return []


def _check_size(mode: str, paths: Sequence[Path], entries: Sequence[Entry]) -> None:
    num_bytes = sum(entry.size for entry in entries)
    if num_bytes <= MAX_BYTES and len(entries) <= MAX_FILES:
        return
    sizes: dict[str, int] = {}
    for entry in entries:
        folder = os.path.dirname(entry.name) or entry.name  # noqa: PTH120
        sizes[folder] = sizes.get(folder, 0) + entry.size
    raise _too_much(mode, paths[0], sizes)


def _too_much(mode: str, path: Path, sizes: dict[str, int]) -> ConfigError:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    named = ", ".join(f"{printable(name)} ({sizes[name] / 2**30:.1f} GiB)" for name in largest)
    remedy = {
        "git": "Name in .gitignore what is no code, or commit less; snapshot=none takes no copy.",
        "copy": "Move what is no code elsewhere, or use git and snapshot=git, which leaves out "
        "what .gitignore names; snapshot=none takes no copy.",
    }
    return ConfigError(
        f"snapshot={mode}: {printable(str(path))} holds more than {MAX_BYTES / 2**30:.0f} GiB or "
        f"{MAX_FILES} files that would be copied for each launch, most of it in {named}. "
        f"{remedy.get(mode, '')}"
    )


def _about_recipes(mode: str, writable: Iterable[Path], entries: Sequence[Entry]) -> Iterator[str]:
    code = {entry.path for entry in entries}
    for folder in dict.fromkeys(writable):
        run = folder / "run.py"
        if mode == "git" and run.is_file() and not any(_is_below(path, folder) for path in code):
            yield (
                f"git ignores {printable(str(folder))}, so stages see the code in it as it is when "
                "they run. snapshot=copy copies it at submission."
            )


def _about_mounts(mounts: Sequence[Mount]) -> str:
    counts: dict[Path, int] = {}
    for mount in mounts:
        counts[mount.target.parent] = counts.get(mount.target.parent, 0) + 1
    fullest = max(counts, key=lambda folder: counts[folder])
    return (
        f"the snapshot takes {len(mounts)} mounts, {counts[fullest]} of them in "
        f"{printable(str(fullest))}: files that git ignores lie beside code there. In a folder of "
        "their own they would cost nothing."
    )


def _stored(directory: Path, paths: Sequence[Path], top: Path, target: Path) -> Path:
    return directory / str(paths.index(top)) / target.relative_to(top)


def _join(folder: Path, name: str) -> str:
    return name if folder == Path() else f"{folder}/{name}"


def _is_below(path: str, folder: Path) -> bool:
    return path.startswith(f"{folder}/")
