"""The guard: exit status, signals, and nothing left behind however a job ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from launcher.job import guard, meter
from tests.conftest import HOSTILE_NAME
from tests.launcher.person import CTRL_C, CTRL_Z, Person

# Starts a child, one that detaches itself and one in a session of its own; then writes their pids.
FAMILY = """\
import os, signal, subprocess, sys, time
if "ignore" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
pids += [subprocess.Popen(["sleep", "60"], start_new_session=new).pid for new in (False, True)]
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    pid = os.fork()
    if pid:
        os.write(writing, str(pid).encode())
        os._exit(0)
    time.sleep(60)
pids.append(int(os.read(reading, 20)))
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(" ".join(map(str, pids)))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(0 if "leave" in sys.argv else 60)
"""
# Would die of the signal; its child, in a session of its own, catches it.
HANDLER_BELOW = """\
import os, pathlib, signal, sys, time
folder, signum = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if os.fork():
    time.sleep(60)
os.setsid()
signal.signal(signum, lambda *_: (folder / "caught").touch())
(folder / "ready").touch()
while True:
    time.sleep(60)
"""
# Exits with the number of SIGTERMs that it got.
STOP_COUNTER = """\
import pathlib, signal, sys, time
folder, count = pathlib.Path(sys.argv[1]), 0
def stop(*_):
    global count
    count += 1
    (folder / "stopping").touch()
signal.signal(signal.SIGTERM, stop)
(folder / "ready").touch()
while not (folder / "end").exists():
    time.sleep(0.01)
sys.exit(count)
"""


# Holds memory, keeps busy, and leaves a child that it does not wait for.
HUNGRY = """\
import os, sys, time
held = bytearray(120 * 2**20)
if os.fork() == 0:
    time.sleep(60)
until = time.process_time() + 0.3
while time.process_time() < until:
    pass
time.sleep(1)
"""


def start(
    *command: str, grace_s: float = 5, options: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, guard.__file__, *options, str(grace_s), *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with process:  # closes the pipes and waits
        pass


def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def family(tmp_path: Path):
    """Start a family of processes under a guard; return the guard and the pids."""
    started: list[subprocess.Popen[bytes]] = []
    pids: list[int] = []

    def start_family(*options: str, grace_s: float = 5) -> tuple[subprocess.Popen[bytes], list]:
        listing = tmp_path / "pids"
        command = [sys.executable, "-c", FAMILY, str(listing), *options]
        started.append(start(*command, grace_s=grace_s))
        until(listing.exists)
        pids.extend(map(int, listing.read_text().split()))
        return started[0], pids

    yield start_family
    for process in started:
        end(process)
    for pid in pids:
        if runs(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137)]
)
def test_exit_status_is_the_commands(script: str, status: int) -> None:
    process = start("sh", "-c", script)
    try:
        assert process.wait(10) == status
    finally:
        end(process)


def test_a_command_that_cannot_start(tmp_path: Path) -> None:
    for command, status, reason in (
        (str(tmp_path / "none"), 127, b"No such file"),
        (str(tmp_path), 126, b"Permission denied"),
    ):
        process = start(command)
        assert process.wait(10) == status
        assert process.stderr is not None
        assert reason in process.stderr.read()
        end(process)


def test_what_the_command_left_behind_ends_with_it(family) -> None:
    process, pids = family("leave")
    assert process.wait(10) == 0
    assert not any(map(runs, pids))


def test_a_signal_stops_the_whole_family(family) -> None:
    process, pids = family()
    assert all(map(runs, pids))
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not any(map(runs, pids))


def test_who_ignores_the_signal_is_killed_after_the_grace_time(family) -> None:
    process, pids = family("ignore", grace_s=0.5)
    start_s = time.monotonic()
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGKILL
    assert 0.4 < time.monotonic() - start_s < 5
    assert not any(map(runs, pids))


def test_end_of_standard_input_means_the_job_is_gone(family) -> None:
    process, pids = family()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not any(map(runs, pids))


def test_the_command_dies_with_a_killed_guard(family) -> None:
    process, pids = family()
    process.kill()
    process.wait(10)
    until(lambda: not runs(pids[0]))


def test_user_signals_are_passed_on(tmp_path: Path) -> None:
    script = f"trap 'exit 9' USR2; touch '{tmp_path}/ready'; while :; do sleep 0.05; done"
    process = start("sh", "-c", script)
    until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGUSR2)
    try:
        assert process.wait(10) == 9
    finally:
        end(process)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_user_signals_reach_only_who_catches_them(tmp_path: Path, signum: signal.Signals) -> None:
    process = start(sys.executable, "-c", HANDLER_BELOW, str(tmp_path), str(int(signum)))
    try:
        until((tmp_path / "ready").exists)
        process.send_signal(signum)
        until((tmp_path / "caught").exists)
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    finally:
        end(process)


def test_a_stop_signal_reaches_the_command_once(tmp_path: Path) -> None:
    process = start(sys.executable, "-c", STOP_COUNTER, str(tmp_path), grace_s=20)
    try:
        until((tmp_path / "ready").exists)
        process.terminate()
        until((tmp_path / "stopping").exists)
        for _ in range(3):
            process.terminate()
            time.sleep(0.05)
        assert process.stdin is not None
        process.stdin.close()  # the end of the job says the same
        time.sleep(0.2)
        (tmp_path / "end").touch()
        assert process.wait(10) == 1
    finally:
        end(process)


def tell(process: subprocess.Popen[bytes], *signums: int) -> None:
    assert process.stdin is not None
    process.stdin.write(bytes(signums))
    process.stdin.flush()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_byte_on_standard_input_is_a_signal(family, signum: signal.Signals) -> None:
    process, pids = family()
    tell(process, signum)
    expected = 130 if signum == signal.SIGINT else 128 + signum  # Python dies of KeyboardInterrupt
    assert process.wait(10) == expected
    assert not any(map(runs, pids))


def test_who_ignores_the_byte_is_killed_after_the_grace_time(family) -> None:
    process, pids = family("ignore", grace_s=0.5)
    start_s = time.monotonic()
    tell(process, signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGKILL
    assert 0.4 < time.monotonic() - start_s < 5
    assert not any(map(runs, pids))


def test_the_byte_of_sigkill_ends_the_command_at_once(family) -> None:
    process, pids = family("ignore", grace_s=30)
    tell(process, signal.SIGTERM, signal.SIGKILL)
    assert process.wait(10) == 128 + signal.SIGKILL
    assert not any(map(runs, pids))


def test_bytes_and_signals_count_together(tmp_path: Path) -> None:
    process = start(sys.executable, "-c", STOP_COUNTER, str(tmp_path), grace_s=20)
    try:
        until((tmp_path / "ready").exists)
        tell(process, signal.SIGTERM, signal.SIGTERM)
        until((tmp_path / "stopping").exists)
        process.terminate()
        time.sleep(0.2)
        (tmp_path / "end").touch()
        assert process.wait(10) == 1
    finally:
        end(process)


def test_the_byte_of_a_user_signal_reaches_only_who_catches_it(tmp_path: Path) -> None:
    signum = signal.SIGUSR2
    process = start(sys.executable, "-c", HANDLER_BELOW, str(tmp_path), str(int(signum)))
    try:
        until((tmp_path / "ready").exists)
        tell(process, signum)
        until((tmp_path / "caught").exists)
        assert process.poll() is None
        tell(process, signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
    finally:
        end(process)


def test_bytes_that_are_no_orders_are_passed_over() -> None:
    process = start("sh", "-c", "sleep 0.5; exit 7")
    try:
        tell(process, *(set(range(256)) - set(guard._STOPS) - {signal.SIGKILL}))
        assert process.wait(10) == 7
    finally:
        end(process)


def test_a_signal_to_the_guard_after_its_job_is_gone_changes_nothing(family) -> None:
    process, pids = family("ignore", grace_s=0.5)
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGKILL
    assert not any(map(runs, pids))


@pytest.fixture
def terminal(tmp_path: Path):
    """Start a command under a guard in a terminal; return a person at it."""
    persons: list[Person] = []

    def start_in_terminal(*command: str, grace_s: float = 5, orders: Path | None = None) -> Person:
        pipe = [] if orders is None else ["--orders", str(orders)]
        guarded = [sys.executable, guard.__file__, "--terminal", *pipe, str(grace_s), *command]
        persons.append(Person(guarded, cwd=tmp_path, env=dict(os.environ)))
        return persons[-1]

    yield start_in_terminal
    for person in persons:
        person.__exit__()


def test_in_a_terminal_the_command_can_be_typed_to(terminal) -> None:
    person = terminal(sys.executable, "-c", "print('hello', input('who? ')); raise SystemExit(4)")
    person.reads("who")
    person.enter("me")
    person.reads("hello me")
    assert person.leaves() == 4


def test_in_a_terminal_keys_are_the_commands(terminal, tmp_path: Path) -> None:
    person = terminal(sys.executable, "-c", STOP_COUNTER.replace("TERM", "INT"), str(tmp_path))
    until((tmp_path / "ready").exists)
    person.type(CTRL_Z)  # nobody could continue it
    for _ in range(2):
        person.type(CTRL_C)
        until((tmp_path / "stopping").exists)
        (tmp_path / "stopping").unlink()
    (tmp_path / "end").touch()
    assert person.leaves() == 2


def test_in_a_terminal_the_end_of_its_orders_ends_the_whole_family(
    terminal, tmp_path: Path
) -> None:
    pipe, listing = tmp_path / "orders", tmp_path / "pids"
    os.mkfifo(pipe, 0o600)
    hold = [sys.executable, "-c", "import os, sys, time; os.open(sys.argv[1], 2); time.sleep(60)"]
    with subprocess.Popen([*hold, str(pipe)]) as holder:
        person = terminal(sys.executable, "-c", FAMILY, str(listing), orders=pipe)
        until(listing.exists)
        pids = list(map(int, listing.read_text().split()))
        assert person.process.poll() is None
        holder.kill()  # which no handler sees
    assert person.leaves() == 128 + signal.SIGHUP
    assert not any(map(runs, pids))


def test_in_a_terminal_a_shell_ends_with_its_orders(terminal, tmp_path: Path) -> None:
    """Other than its family, an interactive shell ignores SIGTERM."""
    pipe = tmp_path / "orders"
    os.mkfifo(pipe, 0o600)
    descriptor = os.open(pipe, os.O_RDWR)
    person = terminal("sh", "-i", grace_s=60, orders=pipe)
    person.enter("echo $((40 + 2))")
    person.reads("42")
    began = time.monotonic()
    os.close(descriptor)
    assert person.leaves() == 128 + signal.SIGHUP
    assert time.monotonic() - began < guard.MAX_GRACE_WITHOUT_JOB_S


def test_in_a_terminal_orders_may_have_ended_before_the_start(terminal, tmp_path: Path) -> None:
    pipe = tmp_path / "orders"
    os.mkfifo(pipe, 0o600)
    person = terminal("sleep", "60", orders=pipe)
    assert person.leaves() == 128 + signal.SIGHUP


def test_in_a_terminal_orders_are_signals(terminal, tmp_path: Path) -> None:
    pipe = tmp_path / "orders"
    os.mkfifo(pipe, 0o600)
    descriptor = os.open(pipe, os.O_RDWR)
    person = terminal(sys.executable, "-c", "print('up', input())", orders=pipe)
    person.enter("now")
    person.reads("up now")
    assert person.leaves() == 0
    person = terminal("sleep", "60", orders=pipe)
    os.write(descriptor, bytes([signal.SIGKILL]))
    assert person.leaves() == 128 + signal.SIGKILL
    os.close(descriptor)


def test_in_a_terminal_a_signal_stops_the_whole_family(terminal, tmp_path: Path) -> None:
    listing = tmp_path / "pids"
    person = terminal(sys.executable, "-c", FAMILY, str(listing))
    until(listing.exists)
    pids = list(map(int, listing.read_text().split()))
    person.process.terminate()
    assert person.leaves() == 128 + signal.SIGTERM
    assert not any(map(runs, pids))


def test_in_a_terminal_a_killed_guard_takes_the_command_with_it(terminal, tmp_path: Path) -> None:
    listing = tmp_path / "pids"
    person = terminal(sys.executable, "-c", FAMILY, str(listing))
    until(listing.exists)
    person.process.kill()
    pids = list(map(int, listing.read_text().split()))
    until(lambda: not runs(pids[0]))
    for pid in filter(runs, pids):  # a container would end with its first process
        os.kill(pid, signal.SIGKILL)


def test_standard_input_of_the_command_is_empty() -> None:
    process = start("cat")
    try:
        assert process.wait(10) == 0
    finally:
        end(process)


def test_what_the_command_used_is_left_in_a_file(tmp_path: Path) -> None:
    inside, used = tmp_path / "inside", tmp_path / HOSTILE_NAME / ".used"
    for folder in (inside, used.parent):
        folder.mkdir()
    for module in (guard, meter):
        shutil.copy(str(module.__file__), inside)
    command = [sys.executable, "-IS", str(inside / "guard.py"), "--used", str(used), "5"]
    process = subprocess.Popen([*command, sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE)
    try:
        assert process.wait(30) == 0
    finally:
        end(process)
    found = json.loads(used.read_text())
    assert 0.3 <= found["cpu_s"] < 5
    assert found["wall_s"] >= 1.3
    # The child has the same memory, not as much again.
    assert 120 * 2**20 <= found["peak_memory_bytes"] < 200 * 2**20
    assert found["oom_kills"] == 0
    assert [path.name for path in used.parent.iterdir()] == [".used"]


def test_measuring_never_changes_the_exit_status(tmp_path: Path) -> None:
    process = start("sh", "-c", "exit 3", options=["--used", str(tmp_path / "no" / "folder")])
    try:
        assert process.wait(10) == 3
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        end(process)


def test_the_guard_needs_only_the_standard_library() -> None:
    for module in (guard, meter):
        code = f"import runpy; runpy.run_path({module.__file__!r})"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
