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
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

MAX_GRACE_WITHOUT_JOB_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MESSAGES = (signal.SIGUSR1, signal.SIGUSR2)


def main(argv: list[str]) -> int:
    """Run ``argv[1:]`` and return its exit status."""
    grace_s, command = float(argv[0]), argv[1:]
    adopt_orphans()
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    job_is_gone = threading.Event()

    def stop(signum: int, _frame: FrameType | None) -> None:
        _signal_group(child.pid, signum)
        seconds = min(grace_s, MAX_GRACE_WITHOUT_JOB_S) if job_is_gone.is_set() else grace_s
        killer = threading.Timer(seconds, _signal_group, (child.pid, signal.SIGKILL))
        killer.daemon = True
        killer.start()

    for stop_signal in _STOPS:
        signal.signal(stop_signal, stop)
    for message in _MESSAGES:
        signal.signal(message, lambda signum, _frame: _signal_group(child.pid, signum))
    threading.Thread(target=_watch_job, args=(job_is_gone,), daemon=True).start()
    status = child.returncode = _wait_for(child.pid)
    _signal_group(child.pid, signal.SIGKILL)
    kill_descendants()
    return status


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


def _watch_job(job_is_gone: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    job_is_gone.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for(pid: int) -> int:
    """Reap every child until the given one ends; return its exit status as a shell has it."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


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
