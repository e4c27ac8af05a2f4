"""GPUs of this machine: which there are, who holds them, and locks that nobody can make a trap."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from launcher.errors import ConfigError, LauncherError
from launcher.local import gpus as local_gpus
from launcher.local.gpus import HeldGpus, held, present
from tests.conftest import lacks

REPOSITORY = Path(__file__).resolve().parents[3]
FOUR = ("0", "1", "2", "3")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gpus, "_POLL_S", 0.01)


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    return tmp_path / "locks of all"


def hold(stack: ExitStack, number: int, locks: Path, ids: tuple[str, ...] = FOUR) -> HeldGpus:
    """Hold GPUs, or give up at once."""
    gave_up: list[str] = []
    return stack.enter_context(
        held(
            number,
            ids,
            should_stop=lambda: bool(gave_up),
            on_wait=gave_up.append,
            folder=locks,
        )
    )


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a stand-in for nvidia-smi that is found first, to be filled with a shell script."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    program.write_text("#!/bin/sh\nprintf '0, GPU-aaaa-1\\n1, GPU-bbbb-2\\n'\n")
    program.chmod(0o755)
    return program


def test_gpus_are_those_that_nvidia_smi_lists(nvidia_smi: Path) -> None:
    assert present(None) == ("0", "1")
    for script in ("echo No devices were found", "printf '0, GPU-aaaa-1\\n'; exit 9", "exit 6"):
        nvidia_smi.write_text(f"#!/bin/sh\n{script}\n")
        assert present(None) == ()
    nvidia_smi.unlink()
    assert present(None) == ()


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ("", ()),
        ("-1", ()),
        ("2,0", ("2", "0")),
        (" 1 , GPU-5e , MIG-GPU-5e/1/0 ", ("1", "GPU-5e", "MIG-GPU-5e/1/0")),
        ("0,-1,1", ("0",)),
        ("NoDevFiles", ()),
        ("1,1", ("1",)),
    ],
)
def test_what_is_visible_to_the_launcher_bounds_what_it_gives(
    monkeypatch: pytest.MonkeyPatch, value: str, ids: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert present(None) == ids
    assert present(["7"]) == ("7",)


def test_ids_that_can_be_none_are_refused() -> None:
    assert present(["0", "0", "GPU-5e"]) == ("0", "GPU-5e")
    for wrong in ("0,1", "", "-1", "a b", "../x", "0\n"):
        with pytest.raises(ConfigError, match=r"can be no GPU.*cluster.gpus=\[0,1\]"):
            present(["0", wrong])


def test_each_gpu_is_held_once(locks: Path) -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        assert hold(first, 2, locks).ids == ("0", "1")
        assert hold(second, 1, locks).ids == ("2",)
        assert hold(third, 2, locks).ids == (), "one of two is not taken"
        assert hold(third, 1, locks).ids == ("3",)
        first.close()
        assert hold(third, 2, locks).ids == ("0", "1")
    with ExitStack() as again:
        assert hold(again, 4, locks).ids == FOUR
    assert hold(ExitStack(), 0, Path("/nonexistent")).ids == ()


def test_more_than_there_are_is_never_waited_for(locks: Path) -> None:
    with ExitStack() as stack, pytest.raises(LauncherError, match=r"5 GPUs .* this machine has 4"):
        hold(stack, 5, locks)


def test_one_gpu_by_two_names_is_held_once(locks: Path, nvidia_smi: Path) -> None:
    with ExitStack() as stack:
        assert hold(stack, 1, locks, ("GPU-aaaa-1",)).ids == ("GPU-aaaa-1",)
        assert hold(stack, 1, locks, ("0",)).ids == ()
        assert hold(stack, 1, locks, ("GPU-a",)).ids == (), "abbreviated, as CUDA allows"
        assert hold(stack, 1, locks, ("1",)).ids == ("1",)
        assert hold(stack, 1, locks, ("MIG-x/1/0",)).ids == ("MIG-x/1/0",)
    with ExitStack() as stack, pytest.raises(LauncherError):
        hold(stack, 2, locks, ("0", "GPU-aaaa-1"))


def test_who_waits_says_so_once_and_is_served(locks: Path) -> None:
    said: list[str] = []
    with ExitStack() as first, ExitStack() as stack:
        hold(first, 4, locks)
        release = threading.Timer(0.2, first.close)
        release.start()
        got = stack.enter_context(
            held(2, FOUR, should_stop=lambda: False, on_wait=said.append, folder=locks)
        )
        release.join()
        assert (got.ids, said) == (("0", "1"), ["2 GPUs"])


HOLDER = """\
import sys, time
from pathlib import Path
from launcher.local.gpus import held
number, folder = int(sys.argv[1]), Path(sys.argv[2])
with held(number, "0123", should_stop=bool, on_wait=print, folder=folder) as got:
    print(",".join(got.ids), flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(number: int, locks: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(number), str(locks), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_holder_holds_nothing(locks: Path) -> None:
    with holder(4, locks, 60) as process, ExitStack() as stack:
        assert process.stdout is not None
        assert process.stdout.readline() == "0,1,2,3\n"
        assert hold(stack, 1, locks).ids == ()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert hold(stack, 4, locks).ids == FOUR


@pytest.mark.slow
def test_processes_that_start_at_once_share_no_gpu(locks: Path) -> None:
    """The folder does not exist yet either."""
    processes = [holder(1, locks, 4) for _ in range(4)]
    got = []
    for process in processes:
        with process:
            assert process.stdout is not None
            got.append(process.stdout.readline().strip())
    assert sorted(got) == list(FOUR)


def test_descriptors_that_are_inherited_hold_on(locks: Path) -> None:
    with ExitStack() as stack:
        descriptors = hold(stack, 4, locks).descriptors
        assert len(descriptors) == 4
        process = subprocess.Popen(["sleep", "60"], pass_fds=descriptors)
    with process, ExitStack() as stack:
        assert hold(stack, 1, locks).ids == (), "its first holder has let go"
        process.kill()
        process.wait()
        assert hold(stack, 4, locks).ids == FOUR


def test_a_lock_without_a_name_holds_off_nobody_and_is_taken_anew(locks: Path) -> None:
    """What cleans temporary folders may remove the file between opening and locking."""
    original, opened = local_gpus._open, []

    def swept(folder: Path, name: str) -> int:
        opened.append(original(folder, name))
        if len(opened) == 1:
            (folder / name).unlink()
        return opened[-1]

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_gpus, "_open", swept)
        assert hold(stack, 1, locks).ids == ("0",)
        assert len(opened) == 2
        patch.undo()
        assert hold(stack, 1, locks, ("0",)).ids == ()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_locks_can_be_taken_by_everybody(locks: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with ExitStack() as stack:
            hold(stack, 1, locks)
        assert os.umask(umask) == umask, "and leaves the umask as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE(locks.stat().st_mode) == 0o1777
    (lock,) = locks.iterdir()
    assert (lock.name, stat.S_IMODE(lock.stat().st_mode)) == ("0.lock", 0o444)


def refusal(locks: Path, ids: tuple[str, ...] = FOUR) -> str:
    with ExitStack() as stack, pytest.raises(LauncherError) as caught:
        hold(stack, 1, locks, ids)
    assert "cluster.gpu_locks=PATH" in str(caught.value)
    return str(caught.value)


def test_a_trap_in_place_of_the_folder(tmp_path: Path, locks: Path) -> None:
    elsewhere = tmp_path / "somebody's home"
    elsewhere.mkdir()
    locks.symlink_to(elsewhere)
    assert f"{locks} is a link" in refusal(locks)
    assert list(elsewhere.iterdir()) == []
    locks.unlink()
    locks.write_text("")
    assert f"{locks} cannot be used: Not a directory" in refusal(locks)
    locks.unlink()
    locks.mkdir()
    locks.chmod(0o777)
    assert "has mode 777: anybody could remove others' locks in it" in refusal(locks)
    locks.rmdir()
    assert "cannot be used: No such file" in refusal(Path("/proc/1/nothing/locks"))


def test_a_trap_in_place_of_a_lock(tmp_path: Path, locks: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    with ExitStack() as stack:
        hold(stack, 1, locks)
    lock = locks / "0.lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "not there yet")
    assert f"{lock} is a link" in refusal(locks)
    assert not (tmp_path / "not there yet").exists()
    lock.unlink()
    lock.symlink_to(target)
    assert f"{lock} is a link" in refusal(locks)
    lock.unlink()
    os.link(target, lock)
    assert f"{lock} is not an empty file of its own" in refusal(locks)
    lock.unlink()
    os.mkfifo(lock)
    assert f"{lock} is not an empty file of its own" in refusal(locks)
    lock.unlink()
    lock.mkdir()
    assert f"{lock} is not an empty file of its own" in refusal(locks)


@pytest.fixture
def other_user(tmp_path: Path) -> Iterator[int]:
    """Return the id of a user who is not the one that runs the tests, and let them in here."""
    if os.getuid() != 0:
        lacks("becoming another user needs root")
    opened = [tmp_path, *list(tmp_path.parents)[:2]]
    modes = [folder.stat().st_mode for folder in opened]
    for folder in opened:
        folder.chmod(0o755)
    yield 65534
    for folder, mode in zip(opened, modes, strict=True):
        folder.chmod(stat.S_IMODE(mode))


def as_user(uid: int, script: str) -> str:
    """Run Python in a child process that has become another user; return what it printed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            printed: list[str] = []
            exec(script, {"say": printed.append, **globals()})  # noqa: S102
        except BaseException as error:  # noqa: BLE001
            printed = [f"{type(error).__name__}: {error}"]
        os.write(writing, "\n".join(printed).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


def test_two_users_share_the_gpus(locks: Path, other_user: int) -> None:
    script = f"""
with ExitStack() as stack:
    say(repr(hold(stack, 2, Path({str(locks)!r})).ids))
"""
    locks.parent.chmod(0o1777)
    assert as_user(other_user, script) == "('0', '1')"
    assert locks.stat().st_uid == other_user
    with ExitStack() as stack:  # in a folder of somebody else's, with locks of theirs
        assert hold(stack, 3, locks).ids == ("0", "1", "2")
        assert as_user(other_user, script) == "()"
        assert (locks / "2.lock").stat().st_uid == 0
    assert as_user(other_user, script.replace("2,", "4,")) == "('0', '1', '2', '3')"


def test_a_folder_of_one_user_alone_says_whose_it_is(locks: Path, other_user: int) -> None:
    locks.mkdir()
    locks.chmod(0o755)
    told = as_user(other_user, f"say(refusal(Path({str(locks)!r})))")
    assert f"{locks} is root's and cannot be written by you" in told
    locks.chmod(0o1777)
    (locks / "0.lock").touch(0o600)
    (locks / "0.lock").chmod(0o600)
    told = as_user(other_user, f"say(refusal(Path({str(locks)!r})))")
    assert f"{locks / '0.lock'} cannot be opened: Permission denied" in told


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[None]:
    """Have the kernel protect files in sticky folders, as systemd has it do."""
    setting = Path("/proc/sys/fs/protected_regular")
    if os.getuid() != 0 or not os.access(setting, os.W_OK):
        lacks("the kernel's settings need root")
    before = setting.read_text().strip()
    if before == "0":
        try:
            setting.write_text("1")
        except OSError:
            lacks("the kernel's settings cannot be changed here")
    yield
    if before == "0":
        setting.write_text(before)


def test_locks_of_others_where_the_kernel_protects_them(
    locks: Path, other_user: int, protected: None
) -> None:
    """With O_CREAT, opening somebody else's file in a sticky folder of a third is refused."""
    locks.mkdir()
    os.chown(locks, 12345, 12345)
    locks.chmod(0o1777)
    script = f"with ExitStack() as s: say(repr(hold(s, 1, Path({str(locks)!r})).ids))"
    with ExitStack() as stack:
        hold(stack, 4, locks)
    assert as_user(other_user, script) == "('0',)"
    careless = f"os.open({str(locks / '0.lock')!r}, os.O_RDONLY | os.O_CREAT, 0o444)"
    assert "PermissionError" in as_user(other_user, careless)
