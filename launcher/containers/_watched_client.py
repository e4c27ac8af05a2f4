"""Stands before a runtime's client, so that its exit status can be believed and nothing is left.

``_watched_client.py (follow|end) CLIENT…`` returns the client's exit status. It holds the client's
standard input, passes on what comes there, and writes each signal that it gets as a byte, which the
guard inside takes for that signal. When it is killed, that input ends, and so does the container.
It needs only the standard library. What was seen of clients:

- A signal while the container is being made may be lost, or end them with status 0, as if the stage
  had run (Podman 4.3 often, Apptainer 1.4.5 and Docker 28.2 seldom); at a third SIGTERM Docker's
  ends with 1. Slurm signals every process of a job, clients too: after SIGTERM or SIGINT, 0 is
  never returned.
- Rootless ``podman run`` is two processes: the one that was started, and its child in Podman's user
  namespace, which follows the container. At SIGTERM the first one ends at once, with 0, while the
  container still stops. ``follow`` waits for the second one, and returns what that returns.
- Apptainer that is killed leaves what serves the image (``squashfuse_ll``). ``end`` ends that. With
  ``follow`` all that is left stays: conmon, and the process that holds Podman's user namespace.
- SIGTERM to every process of a job ends ``squashfuse_ll`` too, and the stage loses its image
  (SIGBUS) before it has saved. Signals ignored or blocked here do not help: Apptainer 1.4.5 resets
  both for what it starts. So, of a launch that is cancelled, the job process alone is told, see
  ``clusters/slurm.py``.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

# subprocess, pathlib and contextlib take longer to import than all of this takes to run.

FOLLOW, END = "follow", "end"
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_STOPS = (signal.SIGTERM, signal.SIGINT)
_PASSED_ON = (*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_STDIN = 0


def main(argv: list[str]) -> int:
    """Run the client; return its exit status as a shell has it."""
    mode, command = argv[0], argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signals = _signals_as_bytes()
    client, its_input = _start(command)
    status, stopped_by = _attend(client, its_input, signals)
    if mode == FOLLOW:
        status = _last_of_group(client, status)
    if mode == END:
        _end_children()
    return status or (128 + stopped_by if stopped_by else 0)


def _start(command: list[str]) -> tuple[int, int]:
    """Start the client; return its process id and the other end of its standard input."""
    theirs, ours = os.pipe()  # neither is inherited but by name
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    try:
        os.setsid()  # its own process group tells Podman's two processes from what else is adopted
        os.dup2(theirs, _STDIN)
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, the client is not to
            signal.signal(signum, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _attend(client: int, its_input: int, signals: int) -> tuple[int, int]:
    """Pass everything on until the client ends; return its status, and what it was stopped by."""
    stopped_by = 0
    inputs = [signals, _STDIN]
    while (status := _reaped(client)) is None:
        for each in select.select(inputs, [], [])[0]:
            told = os.read(each, 512)
            if each == signals:
                told = told.replace(bytes([signal.SIGCHLD]), b"")
                stopped_by = stopped_by or next((byte for byte in told if byte in _STOPS), 0)
            elif not told:
                inputs.remove(_STDIN)
                os.close(its_input)
            if told and _STDIN in inputs:
                _tell(its_input, told)
    return status, stopped_by


def _tell(its_input: int, told: bytes) -> None:
    try:
        os.write(its_input, told)
    except BrokenPipeError:
        return  # the client is just ending


def _signals_as_bytes() -> int:
    """Have every signal of interest written as a byte to a pipe; return the end to read from."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in (*_PASSED_ON, signal.SIGCHLD):
        signal.signal(signum, lambda _signum, _frame: None)
    return reading


def _reaped(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return _as_shell(status) if ended else None


def _last_of_group(group: int, status: int) -> int:
    """Wait for what is left of a process group; return the last one's status, or the given one."""
    while True:
        try:
            status = _as_shell(os.waitpid(-group, 0)[1])
        except ChildProcessError:
            return status


def _end_children() -> None:
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123
            return [int(pid) for pid in listing.read().split()]
    except FileNotFoundError:
        return []


def _as_shell(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
