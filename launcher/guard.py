"""First process of a stage: ``guard.py GRACE_S COMMAND…``. It needs only the standard library.

The guard starts the command in a session of its own and sees to it that nothing of it is left when
the job is over, whichever way it ends:

- a signal to the guard goes to the command's process group; after SIGTERM, SIGINT or SIGHUP the
  command has ``GRACE_S`` seconds before SIGKILL;
- end-of-file on standard input means that the job process is gone, even by
  SIGKILL, which no handler sees: the command is stopped the same way, in five seconds at most;
- should the guard itself be killed, the kernel kills the command (PR_SET_PDEATHSIG);
- processes that the command left behind, detached ones included, are killed when it ends: the guard
  is their subreaper (prctl(2), PR_SET_CHILD_SUBREAPER).

The exit status is the command's, or 128 + signal as a shell has it; 127 or 126 when it cannot
start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MAX_GRACE_WITHOUT_JOB_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MESSAGES = (signal.SIGUSR1, signal.SIGUSR2)
_STDIN = 0
CANNOT_START = (126, 127)


def main(argv: list[str]) -> int:
    """Run ``argv[1:]`` and return its exit status."""
    grace_s, command = float(argv[0]), argv[1:]
    adopt_orphans()
    signals = _signals_as_bytes()
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        print(f"{cannot_start(command)}{error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    child.returncode = _supervise(child.pid, signals, grace_s)
    _signal_group(child.pid, signal.SIGKILL)
    kill_descendants()
    return child.returncode


def cannot_start(command: Sequence[str]) -> str:
    """Return how the line begins that says why a command cannot start."""
    return f"cannot start {command[0]}: "


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants() -> None:
    """Kill what this process has started and adopted, until there is none left."""
    # An orphan's own children become ours when it dies, so ask again until there are none.
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def has_children() -> bool:
    """Tell whether anything of what this process has started or adopted still runs."""
    _reap(-1)
    return bool(_children())


def _supervise(pid: int, signals: int, grace_s: float) -> int:
    """Pass signals on to the command until it ends; return its exit status as a shell has it."""
    inputs = [signals, _STDIN]
    deadline = float("inf")
    while (status := _reap(pid)) is None:
        now = time.monotonic()
        if now >= deadline:
            _signal_group(pid, signal.SIGKILL)
            deadline = float("inf")
        timeout = None if deadline == float("inf") else deadline - now
        ready, _, _ = select.select(inputs, [], [], timeout)
        if signals in ready:
            for signum in os.read(signals, 512):
                if signum != signal.SIGCHLD:
                    _signal_group(pid, signum)
                if signum in _STOPS:
                    deadline = min(deadline, time.monotonic() + grace_s)
        if _STDIN in ready and not os.read(_STDIN, 4096):
            inputs.remove(_STDIN)
            _signal_group(pid, signal.SIGTERM)
            grace_without_job_s = min(grace_s, MAX_GRACE_WITHOUT_JOB_S)
            deadline = min(deadline, time.monotonic() + grace_without_job_s)
    return status


def _signals_as_bytes() -> int:
    """Have every signal of interest written as a byte to a pipe; return the end to read from."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in (*_STOPS, *_MESSAGES, signal.SIGCHLD):
        signal.signal(signum, lambda _signum, _frame: None)
    return reading


def _reap(pid: int) -> int | None:
    """Reap every child that has ended; return the given one's exit status when it is among them."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if ended == 0:
            return None


def _children() -> list[int]:
    # Nothing is listed outside Linux, or by a kernel without CONFIG_PROC_CHILDREN.
    listings = Path("/proc/self/task").glob("*/children")
    return [int(pid) for listing in listings for pid in listing.read_text().split()]


def _signal_group(pid: int, signum: int) -> None:
    # PermissionError is what macOS says of a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
