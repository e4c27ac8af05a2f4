"""What ``ch-run`` cannot do: ``… IMAGE FOLDER (ro|rw SOURCE TARGET)… -- ch-run …``.

``ch-run`` (tried: 0.31) binds only onto what the image has, knows no read-only binds, and splits
``SOURCE:TARGET`` at the first colon. So this program, which needs only the standard library, makes
a user and a mount namespace, as ``ch-run`` does once more, and in it the folder

- ``root``: the image with an empty layer in memory over it (overlayfs), where mount points can be
  made and the image stays as it is;
- ``mounts/<N>``: the N-th mount, read-only where it is to be.

It then becomes ``ch-run``, started in that folder. A squashfs image is first unpacked into FOLDER,
once for all runs. What was unpacked is sealed: a digest over name, mode, size, times and inode of
each entry, whose time of change (ctime) no program can set. Before each run that digest is taken
again; where it differs, somebody has been at the files, and the image is unpacked anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# unshare(2), mount(2)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
# nosuid, nodev and noexec, which an unprivileged remount has to keep (the same bits in statvfs(3)).
_KEPT = 0x2 | 0x4 | 0x8


@dataclass(frozen=True)
class Bind:
    """One mount: a file or folder of the host, and where the container sees it."""

    source: Path
    target: Path
    read_only: bool


def main(argv: list[str]) -> int:
    """Prepare, and become what stands after ``--``. Returns only when something is in the way."""
    end = argv.index("--")
    image, binds, command = Path(argv[0]), _binds(argv[2:end]), argv[end + 1 :]
    try:
        prepare(unpacked(image, Path(argv[1])), binds)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"charliecloud: cannot start {image}: {error}", file=sys.stderr)
        return 126


def unpacked(image: Path, folder: Path) -> Path:
    """Return the folder with what is in an image, unpacked now if it was not before.

    Its name holds size and time of the file: another file of the same name is unpacked anew.

    Raises:
        OSError: it cannot be read or unpacked; or others may put what they like in its place.
    """
    if image.is_dir():
        return image
    found = image.stat()
    whole = folder / f"{image.name}.{found.st_size:x}-{found.st_mtime_ns:x}.unpacked"
    if problem := _open_to_others(folder):
        raise PermissionError(f"images are unpacked in {folder}, and {problem}")
    if _is_dir_of_ours(whole):
        if _read_seal(whole) == seal(whole / "root"):
            return whole / "root"
        aside = whole.with_name(f"{whole.name}.changed-{time.time_ns():x}")
        whole.rename(aside)
        print(
            "charliecloud: the unpacked image was changed since it was made, and is made anew. "
            f"The changed one is {aside}; delete it when no stage runs in it.",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix=f".{image.name}.", dir=folder) as making:
        new = Path(making, "whole")
        new.mkdir()
        command = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest"]
        command += [str(new / "root"), str(image)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # 2: what only root can make, such as device nodes, was left out.
        if done.returncode not in (0, 2):
            raise OSError(f"unsquashfs failed with exit status {done.returncode}")
        (new / "seal").write_text(seal(new / "root"))
        try:
            new.rename(whole)
        except OSError:  # another run was quicker
            if not _is_dir_of_ours(whole) or _read_seal(whole) != seal(whole / "root"):
                raise
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return whole / "root"


def seal(root: Path) -> str:
    """Return a digest over what the file system knows of each entry below a folder."""
    digest = hashlib.sha256()
    pending = [os.fspath(root)]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                told = entry.stat(follow_symlinks=False)
                numbers = (told.st_mode, told.st_uid, told.st_size, told.st_ino)
                times = (told.st_mtime_ns, told.st_ctime_ns)
                name = os.fsencode(os.path.relpath(entry.path, root))
                digest.update(repr((name, *numbers, *times)).encode())
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return digest.hexdigest()


def _read_seal(whole: Path) -> str | None:
    try:
        return (whole / "seal").read_text()
    except OSError:
        return None


def _is_dir_of_ours(path: Path) -> bool:
    try:
        told = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(told.st_mode) or told.st_uid != os.geteuid():
        raise PermissionError(f"{path} was put there by user id {told.st_uid}")
    return True


def _open_to_others(folder: Path) -> str | None:
    """Say how others could replace what is in a folder; None when they cannot."""
    told = folder.stat()
    if told.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user id {told.st_uid}"
    if told.st_mode & 0o022 and not told.st_mode & stat.S_ISVTX:
        return f"others may write to it (chmod go-w {folder})"
    return None


def prepare(image: Path, binds: Sequence[Bind]) -> None:
    """Enter the namespaces, make ``root`` and ``mounts`` and change into their folder.

    Raises:
        OSError: what the kernel does not allow, or a source that is not there.
    """
    _enter_namespaces()
    below = os.open(image, os.O_PATH | os.O_DIRECTORY)
    _mount("tmpfs", image, "tmpfs", 0, "mode=755")
    os.chdir(image)
    for name in ("upper", "work", "root", "mounts"):
        Path(name).mkdir()
    # By its descriptor: overlayfs could not have a path with a colon or a comma among its options.
    layers = f"lowerdir=/proc/self/fd/{below},upperdir=upper,workdir=work"
    _mount("overlay", Path("root"), "overlay", 0, layers)
    os.close(below)
    for number, bind in enumerate(binds):
        is_folder = stat.S_ISDIR(bind.source.stat().st_mode)
        _make_mount_point(mount_point(bind.target, binds[:number]), is_folder=is_folder)
        _bind(bind, Path("mounts", str(number)), is_folder=is_folder)


def mount_point(target: Path, before: Sequence[Bind]) -> Path:
    """Return where a target's mount point lies: in the mount that it is below, or in the image.

    Raises:
        OSError: it is behind an absolute link of the image's, which would lead out of it.
    """
    for bind in reversed(before):
        if target != bind.target and target.is_relative_to(bind.target):
            return bind.source / target.relative_to(bind.target)
    place = Path("root", target.relative_to("/"))
    for part in (place, *place.parents):
        if part.is_symlink() and part.readlink().is_absolute():
            link = f"/{part.relative_to('root')}"
            raise OSError(f"nothing can be mounted at {target}: {link} is a link in the image")
    return place


def _binds(words: Sequence[str]) -> list[Bind]:
    triples = zip(words[0::3], words[1::3], words[2::3], strict=True)
    return [Bind(Path(source), Path(target), mode == "ro") for mode, source, target in triples]


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "user namespaces (unshare)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _mount("none", Path("/"), None, _REC | _PRIVATE)


def _make_mount_point(path: Path, *, is_folder: bool) -> None:
    if path.exists():
        return
    (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        path.touch()


def _bind(bind: Bind, at: Path, *, is_folder: bool) -> None:
    _make_mount_point(at, is_folder=is_folder)
    _mount(bind.source, at, None, _BIND | _REC)
    if bind.read_only:
        kept = os.statvfs(at).f_flag & _KEPT
        _mount("none", at, None, _BIND | _REMOUNT | _RDONLY | kept)


_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str | Path, at: Path, kind: str | None, flags: int, data: str = "") -> None:
    arguments = (os.fsencode(source), os.fsencode(at), kind and kind.encode())
    failed = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None)
    _check(failed, f"mounting {source} at {at}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
