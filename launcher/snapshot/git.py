"""What git says of a work tree. It is only read: no lock is taken, no index written, no hook run.

Names are file system names: what is no UTF-8 stands in surrogate escapes, as in ``os.fsdecode``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from launcher.errors import LauncherError
from launcher.printable import printable

# What stays of the person's settings; GIT_DIR, GIT_INDEX_FILE and their like, which a hook that
# calls the launcher has in its environment, would have git speak of another tree.
_KEPT_VARIABLES = ("GIT_EXEC_PATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
_KEPT_PREFIXES = ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")
_COMMAND = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_GITLINK = b"160000"
_TRUST = "git config --global --add safe.directory"
_NO_WORK_TREE = ("not a git repository", "must be run in a work tree")


class GitFailed(LauncherError):
    """Git ended with an error; the message is its own."""


@dataclass(frozen=True)
class Listing:
    """What lies in a work tree by git's account, relative to the folder asked about.

    Attributes:
        tracked: files and links, also those that were deleted from the tree.
        untracked: files and links that git neither tracks nor ignores.
        submodules: folders that are work trees of their own, checked out or not.
        clones: other work trees inside this one, which it does not know.
    """

    tracked: tuple[str, ...]
    untracked: tuple[str, ...]
    submodules: tuple[str, ...]
    clones: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """Where a work tree stands.

    Attributes:
        commit: None before the first one.
        branch: None when the head is detached.
        changed: tracked files that differ from the commit, relative to the folder asked about.
    """

    commit: str | None
    branch: str | None
    changed: tuple[str, ...]


def list_files(folder: Path) -> Listing | None:
    """Return what git says lies in a folder; None outside of a work tree, or without git.

    Raises:
        LauncherError: git does not trust the folder, or finds its repository damaged.
    """
    try:
        staged = _run(folder, "ls-files", "-z", "--stage").split(b"\0")
        others = _run(folder, "ls-files", "-z", "--others", "--exclude-standard").split(b"\0")
    except FileNotFoundError:
        return None
    except GitFailed as error:
        if any(text in str(error) for text in _NO_WORK_TREE):
            return None
        raise
    # <mode> <object> <stage>\t<name>; a file in a merge conflict is there up to three times.
    entries = {
        name: meta[:6] for meta, _, name in (each.partition(b"\t") for each in staged if each)
    }
    return Listing(
        tuple(os.fsdecode(name) for name, mode in entries.items() if mode != _GITLINK),
        tuple(os.fsdecode(name) for name in others if name and not name.endswith(b"/")),
        tuple(os.fsdecode(name) for name, mode in entries.items() if mode == _GITLINK),
        tuple(os.fsdecode(name.rstrip(b"/")) for name in others if name.endswith(b"/")),
    )


def read_state(folder: Path) -> State:
    """Return where the work tree around a folder stands; changes outside the folder left out.

    Raises:
        GitFailed: git refuses to read it.
    """
    prefix = _run(folder, "rev-parse", "--show-prefix")[:-1]
    options = ("--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--no-renames")
    asked = ("status", *options, "--ignore-submodules=dirty", "--", ".")
    try:
        answer = _run(folder, *asked)
    except GitFailed:
        answer = _run(folder, *_without_filters(folder), *asked)
    lines = answer.split(b"\0")
    headers = dict(line[2:].split(b" ", 1) for line in lines if line.startswith(b"# "))
    # 1 XY sub mH mI mW hH hI name; u XY sub m1 m2 m3 mW h1 h2 h3 name
    changed = [line.split(b" ", 8)[-1] for line in lines if line.startswith(b"1 ")]
    changed += [line.split(b" ", 10)[-1] for line in lines if line.startswith(b"u ")]
    commit, branch = headers[b"branch.oid"], headers[b"branch.head"]
    return State(
        None if commit == b"(initial)" else commit.decode(),
        None if branch == b"(detached)" else os.fsdecode(branch),
        tuple(os.fsdecode(name.removeprefix(prefix)) for name in sorted(changed)),
    )


def write_diff(folder: Path, file: IO[bytes], *, below: str = "") -> None:
    """Write the changes since the last commit, binary files included, as ``git apply`` reads them.

    Args:
        folder: of the work tree.
        file: what is written to, a real file.
        below: put before each name: where the work tree is in the one that is meant.

    Raises:
        GitFailed: such as when there is no commit yet.
    """
    options = ("--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff")
    prefixes = (
        "--no-textconv",
        "--ignore-submodules=dirty",
        f"--src-prefix=a/{below}",
        f"--dst-prefix=b/{below}",
    )
    # diff-index: `git diff` would refresh the index on its way, and lock it for that.
    asked = ("diff-index", "-p", *options, *prefixes, "HEAD", "--", ".")
    file.flush()
    start = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    try:
        _run(folder, *asked, stdout=file)
    except GitFailed:
        os.ftruncate(file.fileno(), start)
        os.lseek(file.fileno(), start, os.SEEK_SET)
        _run(folder, *_without_filters(folder), *asked, stdout=file)


def _without_filters(folder: Path) -> list[str]:
    """Return options by which git compares files as they lie in the tree.

    A filter that the tree's attributes ask for may not be installed, such as Git LFS: what lies in
    the tree is then what was committed, pointers.
    """
    try:
        names = os.fsdecode(
            _run(folder, "config", "-z", "--name-only", "--get-regexp", r"^filter\.")
        )
    except GitFailed:  # there are none
        return []
    filters = dict.fromkeys(name.rpartition(".")[0] for name in names.split("\0") if name)
    off = ("clean=", "process=", "required=false")
    return [part for name in filters for each in off for part in ("-c", f"{name}.{each}")]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that git gets: messages in English, and nothing that leads elsewhere."""
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("GIT_") or name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _run(folder: Path, *arguments: str, stdout: IO[bytes] | int = subprocess.PIPE) -> bytes:
    done = subprocess.run(
        [*_COMMAND, *arguments],
        cwd=folder,
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    if done.returncode == 0:
        return done.stdout or b""
    said = done.stderr.decode("utf-8", "backslashreplace").strip()
    where = printable(str(folder))
    if "dubious ownership" in said:
        # Git names the folder that it means, which may be above the one asked about.
        advice = next((line.strip() for line in said.splitlines() if _TRUST in line), _TRUST)
        raise GitFailed(
            f"git does not read {where}, because it belongs to another user. If you trust it: "
            f"{advice}. Or launch with snapshot=copy, which does not ask git."
        )
    what = next(each for each in arguments if each != "-c" and "=" not in each)
    raise GitFailed(f"git {what} in {where}: {said or f'exit status {done.returncode}'}")
