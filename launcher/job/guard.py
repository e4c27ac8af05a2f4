"""First process of a stage: ``guard.py GRACE_S COMMAND…``. It needs only the standard library.

With ``--terminal`` before GRACE_S, standard input is a terminal's, the command's own: whoever
typed it stands at the other end, and what is said of standard input below does not hold. It holds
for a named pipe, where ``--orders PIPE`` after that names one. With ``--used FILE`` after these,
what the command used is measured (``meter.py``, which lies beside this file), and left there.

The guard starts the command in a session of its own and sees to it that nothing of it is left when
the job is over, whichever way it ends:

- SIGTERM, SIGINT or SIGHUP to the guard goes to the command's process group, each at most once,
  however often it comes: a launcher, a container client and a scheduler may all send it, and a
  second one would interrupt the clean-up that the first began. The command then has ``GRACE_S``
  seconds before SIGKILL;
- SIGUSR1 or SIGUSR2 goes to those of the command's processes that catch it, and to no other: it
  would kill them, and Slurm sends such a warning to every process of a job;
- a byte on standard input is the number of a signal and counts as that: so the job process, which
  holds the other end, is heard through any container runtime, whatever that does with signals.
  SIGKILL, which only comes in this way, is for the command;
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
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

TYPE_CHECKING = False  # that of typing takes as long to import as a third of the guard
if TYPE_CHECKING:
    from launcher.job.meter import Meter

MAX_GRACE_WITHOUT_JOB_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MESSAGES = (signal.SIGUSR1, signal.SIGUSR2)
_STDIN = 0
CANNOT_START = (126, 127)


def main(argv: list[str]) -> int:
    """Run ``argv[1:]`` and return its exit status."""
    in_terminal = argv[0] == "--terminal"
    argv = argv[in_terminal:]
    pipe = argv[1] if argv[0] == "--orders" else None
    argv = argv if pipe is None else argv[2:]
    used = Path(argv[1]) if argv[0] == "--used" else None
    grace_s, *command = argv if used is None else argv[2:]
    adopt_orphans()
    signals = signals_as_bytes()
    kind: type[Supervisor]
    orders: int | None
    try:
        if in_terminal:
            # To wait for who gives orders, and was killed meanwhile, would be to wait for ever.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            orders = None if pipe is None else os.open(pipe, flags)
            child = start_in_foreground(command)
            kind = TerminalSupervisor
        else:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            kind, orders = Supervisor, _STDIN
    except OSError as error:
        return not_started(command, error)
    meter = None if used is None else measure(used)
    supervisor = kind(child.pid, float(grace_s), signals=signals, orders=orders)
    if in_terminal and orders is not None:
        # Of a pipe that had no writer when it was opened, select never tells that it has none.
        with contextlib.suppress(BlockingIOError):
            supervisor.heard(orders)
    child.returncode = supervisor.run()
    kill_descendants()
    if meter is not None:
        meter.finish()
    return child.returncode


def measure(file: Path) -> Meter:
    """Begin to measure what this process's descendants use."""
    # Isolated, the interpreter looks for nothing beside this file by itself.
    sys.path.insert(0, str(Path(__file__).parent))
    meter: Meter = import_module("meter").Meter(file, own_descendants)
    return meter


def start_in_foreground(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command whose process group has this process's terminal.

    Raises:
        OSError: it cannot start.
    """
    return subprocess.Popen(command, preexec_fn=_lead_foreground)


def not_started(command: Sequence[str], error: OSError) -> int:
    """Say why a command cannot start, and return the exit status for it."""
    print(f"{cannot_start(command)}{error.strerror}", file=sys.stderr)
    return 127 if isinstance(error, FileNotFoundError) else 126


def _lead_foreground() -> None:
    _die_with_parent()
    os.setpgid(0, 0)
    # Who is not yet in the foreground and asks for it would be stopped.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a terminal without job control
        os.tcsetpgrp(_STDIN, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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


def own_descendants() -> list[int]:
    """Return the processes that this one has started or adopted, and these in turn."""
    return _descendants(os.getpid())


class Supervisor:
    """Stands over a command that leads a process group of its own.

    Args:
        pid: of the command, a child of this process.
        grace_s: seconds between the wish to stop and SIGKILL.
        signals: descriptor on which this process's own signals arrive as bytes.
        orders: descriptor whose bytes are signals too, and whose end means that nobody is left to
            give any; None where there is none.

    Attributes:
        when_abandoned: the signal by which the command then hears of it.
    """

    when_abandoned = signal.SIGTERM

    def __init__(self, pid: int, grace_s: float, *, signals: int, orders: int | None) -> None:
        self.pid, self.grace_s, self.orders = pid, grace_s, orders
        self.inputs = [signals, *([] if orders is None else [orders])]
        self._deadline = float("inf")
        self._passed_on: set[int] = set()

    def run(self) -> int:
        """Stay until the command has ended; return its exit status as a shell has it."""
        while (status := self.reap()) is None:
            now = time.monotonic()
            if now >= self._deadline:
                signal_group(self.pid, signal.SIGKILL)
                self._deadline = float("inf")
            timeout = None if self._deadline == float("inf") else self._deadline - now
            for ready in select.select(self.inputs, [], [], timeout)[0]:
                self.heard(ready)
        signal_group(self.pid, signal.SIGKILL)
        return status

    def reap(self) -> int | None:
        """Reap every child that has ended; return the command's exit status once it has one."""
        return _reap(self.pid)

    def heard(self, descriptor: int) -> None:
        """Take what there is to read."""
        told = os.read(descriptor, 512)
        for signum in told:
            self.obey(signum)
        if not told and descriptor == self.orders:
            self.inputs.remove(descriptor)
            self.abandoned()

    def obey(self, signum: int) -> None:
        """Pass a signal on, if it is one that is passed on."""
        if signum in _MESSAGES:
            _signal_who_catches(self.pid, signum)
        elif signum in _STOPS:
            self.stop(signum, self.grace_s)
        elif signum == signal.SIGKILL:
            self.stop(signum, 0.0)

    def abandoned(self) -> None:
        """Stop the command: whoever gave orders is gone."""
        self.stop(self.when_abandoned, min(self.grace_s, MAX_GRACE_WITHOUT_JOB_S))

    def stop(self, signum: int, grace_s: float) -> None:
        """Ask the command to stop, each signal but once; kill it after the time of grace."""
        if signum not in self._passed_on:
            self._passed_on.add(signum)
            signal_group(self.pid, signum)
        self._deadline = min(self._deadline, time.monotonic() + grace_s)


class TerminalSupervisor(Supervisor):
    """Stands over a command that has a terminal, with keys such as Ctrl-Z."""

    when_abandoned = signal.SIGHUP  # as a terminal that closes: a shell ignores SIGTERM

    def reap(self) -> int | None:
        """Reap as ever, and see whether the command was stopped."""
        return _reap(self.pid, self.stopped)

    def stopped(self, signum: int) -> None:
        """Continue a command that Ctrl-Z has stopped: no shell is there to do so."""
        if signum == signal.SIGTSTP:
            signal_group(self.pid, signal.SIGCONT)


def signals_as_bytes() -> int:
    """Have every signal of interest written as a byte to a pipe; return the end to read from."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in (*_STOPS, *_MESSAGES, signal.SIGCHLD):
        signal.signal(signum, lambda _signum, _frame: None)
    return reading


def _reap(pid: int, stopped: Callable[[int], object] | None = None) -> int | None:
    """Reap every child that has ended; return the given one's exit status when it is among them."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG | (os.WUNTRACED if stopped else 0))
        except ChildProcessError:
            return None
        if ended == 0:
            return None
        if ended == pid and stopped and os.WIFSTOPPED(status):
            stopped(os.WSTOPSIG(status))
        elif ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _children(pid: int | str = "self") -> list[int]:
    # Nothing is listed outside Linux, or by a kernel without CONFIG_PROC_CHILDREN.
    children: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            children += map(int, listing.read_text().split())
    return children


def _descendants(pid: int) -> list[int]:
    children = _children(pid)
    return [*children, *(below for child in children for below in _descendants(child))]


def signal_group(pid: int, signum: int) -> None:
    """Send a signal to a process group, if there still is one."""
    # PermissionError is what macOS says of a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _signal_who_catches(pid: int, signum: int) -> None:
    if sys.platform != "linux":
        return signal_group(pid, signum)
    # Not only the group: torchrun starts each of its workers in a session of its own.
    for process in [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if _catches(process, signum):
                os.kill(process, signum)


def _catches(pid: int, signum: int) -> bool:
    """Tell whether a process has a handler for a signal (SigCgt of proc_pid_status(5))."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signum - 1) & 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
