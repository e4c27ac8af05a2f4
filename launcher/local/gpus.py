"""GPUs of this machine, each held by one stage at a time.

Who holds a GPU holds a lock on a file; the kernel releases it when the last process that has it
open is gone, however that ends. The files are in one folder for all users of the machine: empty,
never written to, and only ever opened where they cannot be somebody's trap.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from launcher.errors import ConfigError, LauncherError

# Not TMPDIR's: users, and jobs of one user, may each have their own.
LOCKS = Path("/tmp/launcher-gpus")
_POLL_S = 0.5
_NVIDIA_SMI_TIMEOUT_S = 30
_FOLDER_MODE = 0o1777  # everybody makes locks in it, and removes none but their own


@dataclass(frozen=True)
class HeldGpus:
    """GPUs that are held.

    Attributes:
        ids: as they were listed.
        descriptors: of their locks. A process that inherits them holds the GPUs as well.
    """

    ids: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()


def present(asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the ids of the GPUs there are: those asked for, or all that the driver lists.

    ``CUDA_VISIBLE_DEVICES`` of the launcher narrows the latter.

    Raises:
        ConfigError: an id asked for cannot be one.
    """
    if asked is not None:
        for each in asked:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9:./-]*", each):
                raise ConfigError(
                    f"cluster.gpus has {each!r}, which can be no GPU. "
                    "Write cluster.gpus=[0,1], or UUIDs as nvidia-smi -L lists them."
                )
        return tuple(dict.fromkeys(asked))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(index for index, _ in _driver_list())
    ids = [each.strip() for each in visible.split(",")]
    # As CUDA reads it: an invalid id, such as -1, hides all that follow.
    valid = itertools.takewhile(re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch, ids)
    return tuple(dict.fromkeys(valid))


@contextmanager
def held(
    number: int,
    ids: Sequence[str],
    *,
    should_stop: Callable[[], bool],
    on_wait: Callable[[str], object],
    folder: Path = LOCKS,
) -> Iterator[HeldGpus]:
    """Hold that many of the GPUs; wait until so many are free.

    Args:
        number: of GPUs; none are held for 0.
        ids: of those that there are.
        should_stop: asked while waiting; the context is then entered without GPUs.
        on_wait: told what is waited for, once, when there is something to wait for.
        folder: of the locks.

    Raises:
        LauncherError: there are not so many, or the locks cannot be made.
    """
    if number == 0:
        yield HeldGpus()
        return
    names = _lock_names(ids)
    if number > len(set(names.values())):
        raise LauncherError(f"{number} GPUs are asked for, and this machine has {len(ids)}")
    locks: dict[str, int] = {}
    is_told = False
    try:
        while not should_stop():
            # All or none: two stages that each hold one of two would wait for ever.
            locks = _take(number, names, folder)
            if locks:
                break
            if not is_told:
                on_wait("a GPU" if number == 1 else f"{number} GPUs")
                is_told = True
            time.sleep(_POLL_S)
        yield HeldGpus(tuple(locks), tuple(locks.values()))
    finally:
        for descriptor in locks.values():
            os.close(descriptor)


def _take(number: int, names: dict[str, str], folder: Path) -> dict[str, int]:
    """Lock that many of the GPUs and return their descriptors, or nothing."""
    taken: dict[str, int] = {}
    used: set[str] = set()
    try:
        for gpu, name in names.items():
            descriptor = None if name in used else _lock(folder, name)
            if descriptor is not None:
                taken[gpu] = descriptor
                used.add(name)
            if len(taken) == number:
                whole, taken = taken, {}
                return whole
    finally:
        for descriptor in taken.values():
            os.close(descriptor)
    return {}


def _lock(folder: Path, name: str) -> int | None:
    """Lock one file; return its descriptor, or None when somebody else has it locked."""
    while True:
        descriptor = _open(folder, name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What cleans temporary folders may have removed it between the two: a lock on a file
            # without a name holds off nobody.
            if os.path.samestat(os.fstat(descriptor), (folder / name).lstat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise _refused(folder / name, f"cannot be locked: {error.strerror}") from error
        os.close(descriptor)


def _open(folder: Path, name: str) -> int:
    """Open a lock's file, which is made where it is missing."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _shared_folder(folder) as parent:
        while True:
            try:
                # Not with O_CREAT at once: in a sticky folder Linux then refuses other people's
                # files (fs.protected_regular, which systemd sets).
                descriptor = os.open(name, flags, dir_fd=parent)
                break
            except FileNotFoundError:
                pass
            except OSError as error:
                is_link = error.errno == errno.ELOOP
                what = "is a link" if is_link else f"cannot be opened: {error.strerror}"
                raise _refused(folder / name, what) from error
            try:
                # Everybody who locks it has to read it; nobody has to write it.
                with _no_umask():
                    new = flags | os.O_CREAT | os.O_EXCL
                    descriptor = os.open(name, new, 0o444, dir_fd=parent)
                break
            except FileExistsError:  # somebody was quicker
                continue
            except OSError as error:
                raise _refused(folder / name, f"cannot be made: {error.strerror}") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_size == 0:
        return descriptor
    os.close(descriptor)
    raise _refused(folder / name, "is not an empty file of its own")


@contextmanager
def _shared_folder(folder: Path) -> Iterator[int]:
    """Open the folder of the locks, which is made where it is missing."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), _no_umask():
            folder.mkdir(mode=_FOLDER_MODE)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # ELOOP or ENOTDIR, as the kernel has it
        what = "is a link" if folder.is_symlink() else f"cannot be used: {error.strerror}"
        raise _refused(folder, what) from error
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _refused(folder, f"has mode {mode:o}: anybody could remove others' locks in it")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _refused(folder, f"is {_owner(status.st_uid)}'s and cannot be written by you")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _no_umask() -> Iterator[None]:
    # A chmod afterwards would come too late for another user who looks in between.
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _refused(path: Path, what: str) -> LauncherError:
    return LauncherError(
        f"cannot lock a GPU: {path} {what}. Have whom it belongs to remove it, or agree with all "
        "who use these GPUs on another folder: cluster.gpu_locks=PATH"
    )


def _owner(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _lock_names(ids: Sequence[str]) -> dict[str, str]:
    """Return the name of each GPU's lock: the same one whether it is called by number or UUID."""
    listed = _driver_list() if any(not each.isdigit() for each in ids) else ()
    names = {}
    for each in ids:
        numbers = [index for index, uuid in listed if uuid.startswith(each)]  # CUDA: abbreviated
        known = numbers[0] if len(numbers) == 1 else each
        names[each] = f"{quote(known, safe='')}.lock"
    return names


def _driver_list() -> tuple[tuple[str, str], ...]:
    """Return number and UUID of the GPUs that nvidia-smi lists; nothing without one that works."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode != 0:
        return ()
    return tuple(re.findall(r"^(\d+), *(\S+)$", done.stdout, re.MULTILINE))
