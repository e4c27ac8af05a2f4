"""Short commands, run quickly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.processes import quick as quick_process

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "A": "it's é"}


def run(*command: str, stdin: bytes = b"", timeout_s: float = 20):
    return quick_process.run(command, stdin=stdin, environment=ENVIRONMENT, timeout_s=timeout_s)


@pytest.fixture(params=["new", "old"], autouse=True)
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as on a new Linux, and as on one that lacks what is quickest."""

    def refuse(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    if request.param == "old":
        monkeypatch.setattr(os, "memfd_create", refuse)
        monkeypatch.setattr(os, "pidfd_open", refuse)


def test_what_goes_in_and_what_comes_out() -> None:
    big = os.urandom(1 << 20)
    done = run("sh", "-c", 'cat; printf %s "$A" >&2; exit 3', stdin=big)
    assert (done.returncode, done.stdout) == (3, big)
    assert done.stderr == "it's é".encode()
    assert run("true").returncode == 0
    assert run("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        run("no-such-command")


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run("sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60", timeout_s=0.5)
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_command_is_out_of_reach_of_control_c_and_begins_afresh(tmp_path: Path) -> None:
    look = "import os; print(os.getpgrp() == os.getpid(), os.path.exists('/proc/self/fd/%d'))"
    with tmp_path.joinpath("ours").open("w") as ours:
        done = run(sys.executable, "-S", "-c", look % ours.fileno())
    assert done.stdout == b"True False\n"
    yes = run("sh", "-c", "yes | head -n 1; exit 0")  # `yes` ends by SIGPIPE, and says nothing
    assert (yes.stdout, yes.stderr) == (b"y\n", b"")


def test_a_signal_that_comes_meanwhile_is_heard_and_the_command_goes_on() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda signum, _frame: heard.append(signum))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        done = run("sh", "-c", "sleep 0.5; echo done")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (done.stdout, heard) == (b"done\n", [signal.SIGALRM])
