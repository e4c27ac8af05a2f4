"""Files of a snapshot, copied and hashed in one pass."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from launcher.errors import LauncherError
from launcher.printable import printable
from launcher.snapshot.tree import Entry

_THREADS = 8
_PORTION = 16  # files that one thread takes at a time
_CHUNK_BYTES = 2**20
_ATTEMPTS = 10
_PAUSE_S = 0.02
LINK, FILE, EXECUTABLE = "120000", "100644", "100755"  # as git writes them


class Vanished(LauncherError):
    """A file was deleted, or became something else, after it had been listed."""


@dataclass(frozen=True)
class Content:
    """What a file or link holds.

    Attributes:
        mode: ``100644``, ``100755`` when its owner may execute it, ``120000`` for a link.
        sha256: of its bytes, or of a link's text.
        size: in bytes.
        mtime_ns: time of its last change in the tree.
    """

    mode: str
    sha256: str
    size: int
    mtime_ns: int


Contents: TypeAlias = list[tuple[Entry, Content]]


def read_content(path: str, copy: str | None = None) -> Content:
    """Hash a file or link, and copy it when asked to; again when it changed meanwhile.

    A copy has the file's times, and is readable and writable by its owner alone.

    Raises:
        Vanished: it is not there any more as a file or link.
        LauncherError: it changes all the time.
        OSError: it cannot be read, or the copy not written.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S * attempt)
            with suppress(FileNotFoundError):
                os.unlink(copy or "")  # noqa: PTH108
        try:
            content = _try_content(path, copy)
        except FileNotFoundError as error:
            if error.filename == copy:
                raise
            raise Vanished(_vanished(path)) from None
        if content is not None:
            return content
    raise LauncherError(
        f"{printable(path)} changed each time that it was copied. Launch again when it is complete."
    )


def read_all(
    entries: Sequence[Entry],
    copy_to: Path | None,
    *,
    folders: Iterable[str] = (),
    needed: Collection[str] = (),
) -> Contents:
    """Hash files, and copy them when asked to.

    Args:
        entries: files and links.
        copy_to: the folder of the snapshot; None copies nothing.
        folders: made in it, whether or not there is anything to be put there.
        needed: paths that have to be there still; others may have vanished, and are left out.

    Raises:
        Vanished: a file that is needed is not there any more.
        LauncherError: a file changes all the time.
        OSError: a file cannot be read, or its copy not written.
    """
    if copy_to is not None:
        stored = {os.path.dirname(entry.stored) for entry in entries}  # noqa: PTH120
        for folder in sorted(stored.union(folders)):
            _make_private(f"{copy_to}/{folder}")

    def read(some: Sequence[Entry]) -> Contents:
        contents: Contents = []
        for entry in some:
            try:
                copy = None if copy_to is None else f"{copy_to}/{entry.stored}"
                content = read_content(entry.path, copy)
            except (Vanished, NotADirectoryError):
                if entry.path in needed:
                    raise
                continue
            if not entry.carried:
                contents.append((entry, content))
        return contents

    portions = [entries[start : start + _PORTION] for start in range(0, len(entries), _PORTION)]
    # On network file systems each file is several round trips, which can be under way at once.
    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(read, portion) for portion in portions]
        try:
            return [each for future in futures for each in future.result()]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def digest_of(contents: Contents) -> str:
    """Return the SHA-256 over names, modes and contents, whatever their order."""
    lines = sorted(
        os.fsencode(f"{entry.root}/{entry.name}") + f"\0{content.mode} {content.sha256}\n".encode()
        for entry, content in contents
    )
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _make_private(folder: str) -> None:
    """Make a folder and its parents, all 0700; ``Path.mkdir`` gives that mode to the last only."""
    if not os.path.isdir(folder):  # noqa: PTH112
        _make_private(os.path.dirname(folder))  # noqa: PTH120
        os.mkdir(folder, 0o700)  # noqa: PTH102


def _try_content(path: str, copy: str | None) -> Content | None:
    """Return None when the file changed while it was read."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return _link(path, status, copy)
    if not stat.S_ISREG(status.st_mode):
        raise Vanished(_vanished(path))
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link by now
            return None
        raise
    try:
        before = os.fstat(source)
        executable = bool(before.st_mode & stat.S_IXUSR)
        sha256 = hashlib.sha256()
        if copy is None:
            size = _pour(source, None, sha256)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(copy, flags, 0o700 if executable else 0o600)
            try:
                size = _pour(source, target, sha256)
                os.utime(target, ns=(before.st_mtime_ns, before.st_mtime_ns))
            finally:
                os.close(target)
        after = os.fstat(source)
    finally:
        os.close(source)
    if (size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    mode = EXECUTABLE if executable else FILE
    return Content(mode, sha256.hexdigest(), size, after.st_mtime_ns)


def _pour(source: int, target: int | None, sha256: hashlib._Hash) -> int:
    size = 0
    while chunk := os.read(source, _CHUNK_BYTES):
        sha256.update(chunk)
        size += len(chunk)
        view = memoryview(chunk)
        while target is not None and view:
            view = view[os.write(target, view) :]
    return size


def _link(path: str, status: os.stat_result, copy: str | None) -> Content | None:
    try:
        text = os.readlink(path)  # noqa: PTH115  (Path would tidy it)
    except OSError:  # no link any more
        return None
    if copy is not None:
        os.symlink(text, copy)  # noqa: PTH211
        os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)
    raw = os.fsencode(text)
    return Content(LINK, hashlib.sha256(raw).hexdigest(), len(raw), status.st_mtime_ns)


def _vanished(path: str) -> str:
    return f"{printable(path)} was deleted or replaced while the code was copied. Launch again."
