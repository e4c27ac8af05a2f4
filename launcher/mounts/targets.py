"""Places in the tree for a snapshot to be mounted over, where the tree has changed since.

A mount needs something to be laid over. What was deleted or renamed while the job was queued, by a
``git checkout`` of another branch perhaps, gets an empty file or folder in its place for as long as
a stage runs. It is known by being empty and by the time that it bears, and locked by each job that
needs it; the last one takes it away.
"""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from launcher.containers.base import Mount
from launcher.errors import LauncherError
from launcher.printable import printable

# In 1978; whole seconds, since not all file systems keep more.
_MTIME_NS = 271_828_182 * 10**9


@contextmanager
def held_targets(mounts: Sequence[Mount]) -> Iterator[None]:
    """Have something at the target of each mount of a snapshot, as long as this is entered.

    Args:
        mounts: of a stage. Those at their own path are left alone, and those that lie in none of
            the others: the runtime makes the places for them.

    Raises:
        LauncherError: something else is there now, or nothing can be put there.
    """
    trees = {mount.target for mount in mounts if mount.source == mount.target}
    with ExitStack() as stack:
        for mount in mounts:
            is_overlaid = mount.source != mount.target and not trees.isdisjoint(
                mount.target.parents
            )
            if is_overlaid:
                try:
                    _hold(mount, stack)
                except OSError as error:
                    raise LauncherError(
                        f"{printable(str(mount.target))} was part of the code at submission. It "
                        f"is not there any more, and cannot be mounted: {error.strerror}. Put it "
                        "back, or launch again."
                    ) from error
        yield


def _hold(mount: Mount, stack: ExitStack) -> None:
    is_dir = mount.source.is_dir()
    target = mount.target
    while True:
        if not os.path.lexists(target):
            stack.enter_context(_parents(target))
            _make(target, is_dir=is_dir)
        status = target.lstat()
        if os.path.realpath(target) != str(target) or _kind(status) != (
            stat.S_IFDIR if is_dir else stat.S_IFREG
        ):
            raise LauncherError(
                f"{printable(str(target))} was a {'folder' if is_dir else 'file'} at submission "
                "and is something else now, or is reached by a link. Put it back, or launch again."
            )
        if not _is_placeholder(target, status):
            return
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks: the placeholder stays
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _same(target, descriptor):
            stack.callback(_release, target, descriptor)
            return
        os.close(descriptor)  # another job has just taken it away


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above a path that are not there; remove them at the end if empty."""
    missing = []
    for parent in target.parents:
        if os.path.lexists(parent):
            break
        missing.append(parent)
    for parent in reversed(missing):
        with suppress(FileExistsError):
            parent.mkdir()
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


def _make(target: Path, *, is_dir: bool) -> None:
    """Make a placeholder under another name, so that it is never seen without its mark."""
    partial = target.with_name(f".{uuid.uuid4().hex[:8]}.placeholder")
    if is_dir:
        partial.mkdir()
    else:
        partial.touch(exist_ok=False)
    try:
        os.utime(partial, ns=(_MTIME_NS, _MTIME_NS))
        if is_dir:
            partial.rename(target)  # fails where something is in the way, but an empty folder
        else:
            with suppress(FileExistsError):
                target.hardlink_to(partial)
    finally:
        with suppress(FileNotFoundError):
            partial.rmdir() if is_dir else partial.unlink()


def _release(target: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _same(target, descriptor) and _is_placeholder(target, target.lstat()):
            target.rmdir() if target.is_dir() else target.unlink()
    except OSError:
        pass  # another job needs it still, or there are no locks
    finally:
        os.close(descriptor)


def _is_placeholder(target: Path, status: os.stat_result) -> bool:
    if status.st_mtime_ns != _MTIME_NS:
        return False
    if stat.S_ISDIR(status.st_mode):
        return not any(target.iterdir())
    return status.st_size == 0


def _same(target: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(target.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _kind(status: os.stat_result) -> int:
    return stat.S_IFMT(status.st_mode)
