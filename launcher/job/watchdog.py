"""First process in the terminal of a stage in the foreground: ``watchdog.py CONTROL COMMAND…``.

Such a stage is a child of the launcher's terminal and not of a job, and its container, if it has
one, belongs to a daemon. The watchdog sees to it that nothing of either is left, whichever way the
launcher ends:

- CONTROL is a socket to the launcher. A byte on it is the number of a signal, as the guard has it.
  Its end means that the launcher is gone, even by SIGKILL: the command is stopped, what it still
  prints is kept, its container is removed, and the person's terminal gets its modes back, which the
  launcher had changed;
- the command leads the foreground process group, so that keys such as Ctrl-C are its own. Should
  Ctrl-Z stop it, the launcher is told, and goes to sleep itself until the shell continues both.

It imports the launcher only when there is a container to remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import signal
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started by its path, in the environment of a stage
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from launcher.job import guard
from launcher.job.meter import Meter

STOPPED = b"Z"
_CHUNK = 64 * 1024
_HEAD = struct.Struct("!I")


@dataclass(frozen=True)
class Setup:
    """What the watchdog is told before it starts the command.

    Attributes:
        screen: descriptor of the end of the pseudo-terminal that shows what the command prints.
        output: descriptor of the file that keeps it.
        person: descriptor of the terminal that the person sits at.
        modes: of that terminal before the launcher changed them, as termios(3) has them.
        grace_s: seconds between the wish to stop and SIGKILL.
        container: pickled settings of the container runtime, its name, and the container's name.
        used: file in which to leave what the command used; None where its guard does so.
    """

    screen: int
    output: int
    person: int
    modes: list[Any]
    grace_s: float
    container: tuple[str, bytes, str]
    used: Path | None = None


def send_setup(control: socket.socket, setup: Setup) -> None:
    """Tell the watchdog at the other end of a socket what it needs to know."""
    told = pickle.dumps(vars(setup))
    control.sendall(_HEAD.pack(len(told)) + told)


def main(argv: Sequence[str]) -> int:
    """Run ``argv[1:]`` in this process's terminal and return its exit status."""
    control, command = socket.socket(fileno=int(argv[0])), argv[1:]
    guard.adopt_orphans()
    signals = guard.signals_as_bytes()
    setup = _receive_setup(control)
    if setup is None:  # the launcher has gone already
        return 128 + signal.SIGKILL
    try:
        child = guard.start_in_foreground(command)
    except OSError as error:
        return guard.not_started(command, error)
    meter = setup.used and Meter(setup.used, guard.own_descendants)
    watch = _Watch(child.pid, setup, signals=signals, control=control)
    child.returncode = watch.run()
    guard.kill_descendants()
    if meter:
        meter.finish()
    if watch.is_alone:
        watch.keep_output()
        _remove(setup.container)
    return child.returncode


class _Watch(guard.TerminalSupervisor):
    """A supervisor that knows job control, and what to do without a launcher."""

    when_abandoned = signal.SIGTERM  # a stage saves its work

    def __init__(self, pid: int, setup: Setup, *, signals: int, control: socket.socket) -> None:
        super().__init__(pid, setup.grace_s, signals=signals, orders=control.fileno())
        self.is_alone = False
        self._setup, self._control = setup, control

    def stopped(self, signum: int) -> None:
        with contextlib.suppress(OSError):
            self._control.send(STOPPED)

    def heard(self, descriptor: int) -> None:
        if descriptor == self._setup.screen:
            self.keep_output()
            return
        try:
            super().heard(descriptor)
        except ConnectionError:  # the launcher went without having read what it was told
            self.inputs.remove(descriptor)
            self.abandoned()

    def obey(self, signum: int) -> None:
        if signum == signal.SIGCONT:
            guard.signal_group(self.pid, signal.SIGCONT)
        else:
            super().obey(signum)

    def stop(self, signum: int, grace_s: float) -> None:
        super().stop(signum, grace_s)
        guard.signal_group(self.pid, signal.SIGCONT)  # one that is stopped hears nothing else

    def abandoned(self) -> None:
        self.is_alone = True
        _restore(self._setup)
        # This process holds the pseudo-terminal open: what the command says while it saves its work
        # raises no error, and is kept.
        self.inputs.append(self._setup.screen)
        super().abandoned()

    def keep_output(self) -> None:
        """Read what there is on the screen, into the file."""
        with contextlib.suppress(OSError):  # also: nothing there now, and nobody left to write
            while said := os.read(self._setup.screen, _CHUNK):
                os.write(self._setup.output, said)


def _receive_setup(control: socket.socket) -> Setup | None:
    def receive(size: int) -> bytes:
        told = b""
        while len(told) < size and (more := control.recv(size - len(told))):
            told += more
        return told

    head = receive(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    (size,) = _HEAD.unpack(head)
    told = receive(size)
    return Setup(**pickle.loads(told)) if len(told) == size else None


def _restore(setup: Setup) -> None:
    """Give the person's terminal its modes back, unless the shell has done so."""
    with contextlib.suppress(termios.error):
        output_modes = termios.tcgetattr(setup.person)[1]
        if not output_modes & termios.OPOST:  # raw: shells that edit a line leave this one alone
            termios.tcsetattr(setup.person, termios.TCSANOW, setup.modes)


def _remove(container: tuple[str, bytes, str]) -> None:
    from launcher import registry

    runtime, settings, name = container
    registry.load("containers", runtime).Implementation(pickle.loads(settings)).remove(name)


def take_terminal() -> None:
    """Make standard input the controlling terminal of this process's new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
