"""The guard: exit status, signals, and nothing left behind however a job ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import guard

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


def start(*command: str, grace_s: float = 5) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, guard.__file__, str(grace_s), *command],
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


def test_standard_input_of_the_command_is_empty() -> None:
    process = start("cat")
    try:
        assert process.wait(10) == 0
    finally:
        end(process)


def test_the_guard_needs_only_the_standard_library() -> None:
    code = f"import runpy; runpy.run_path({guard.__file__!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
