"""A standard output that is full, closed, or a pipe that nobody reads."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher.conftest import REPOSITORY

COMMANDS = ("--help", "status --help", "__complete st", "completion bash")


def in_shell(command: str, redirection: str, *, unbuffered: bool) -> tuple[str, str, int]:
    """Run the launcher in a shell; return its output, its errors and its exit status."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment["PYTHONUNBUFFERED"] = "1" if unbuffered else ""
    line = f"{shlex.quote(sys.executable)} -m launcher {command} {redirection}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, done.stderr, done.returncode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("unbuffered", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_output_is_one_line_and_an_exit_status(command: str, unbuffered: bool) -> None:
    said = in_shell(command, "> /dev/full", unbuffered=unbuffered)
    full = "launcher: cannot write to standard output: No space left on device\n"
    assert said == ("", full, 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_output_is_passed_over(command: str) -> None:
    assert in_shell(command, ">&-", unbuffered=False) == ("", "", 0)


def test_all_streams_may_be_closed() -> None:
    command = "doctor --cluster local --container none --json"
    stdout, stderr, status = in_shell(command, ">&- 2>&- <&-", unbuffered=False)
    assert (stdout, stderr) == ("", "")
    assert status in (0, 1)


def test_a_closed_standard_error_is_no_standard_output() -> None:
    assert in_shell("nonsense", "2>&-", unbuffered=False) == ("", "", 2)


@pytest.mark.parametrize("unbuffered", [True, False])
def test_a_pipe_that_nobody_reads_is_quiet(unbuffered: bool) -> None:
    _, stderr, status = in_shell("--help", "| true", unbuffered=unbuffered)
    assert stderr == ""
    assert status in (0, 141)  # it may have been faster
