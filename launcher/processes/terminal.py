"""A command in this terminal, for debugging, with all that it prints kept in a file as well.

The command has a pseudo-terminal of its own: job control, colours and ``breakpoint()`` work as if
it had been typed into the shell. What is typed here goes there, byte for byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from launcher.job import watchdog

_CHUNK = 64 * 1024
_SUSPEND = b"\x1a"  # Ctrl-Z
_MAX_TYPED = 64 * 1024
# Colours as they were, and a cursor: a progress bar that was killed has hidden it.
_RESET = b"\x1b[0m\x1b[?25h"


def is_terminal() -> bool:
    """Tell whether a person sits at both ends: what is typed and what is shown."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def say(speak: Callable[[], object]) -> None:
    """Print something, where there still is somebody who reads it."""
    try:
        speak()
        sys.stdout.flush()
    except (OSError, SystemExit):  # the latter is what rich makes of a broken pipe
        _show_nowhere()


@dataclass(frozen=True)
class Attended:
    """A command that runs in a terminal of its own.

    Attributes:
        process: the watchdog that stands over it; its exit status is the command's.
        screen: the end of the pseudo-terminal at which a person sits.
        control: a byte written to it is the number of a signal for the command.
    """

    process: subprocess.Popen[bytes]
    screen: int
    control: socket.socket


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: IO[bytes],
    grace_s: float,
    container: tuple[Any, str],
    held: Sequence[int] = (),
    used: Path | None = None,
) -> Attended:
    """Start a command in a pseudo-terminal of its own.

    Args:
        command: to run.
        cwd: where.
        env: its environment.
        output: file that keeps what it prints.
        grace_s: seconds between the wish to stop and SIGKILL.
        container: settings of the runtime, and the name of the container that is to be removed
            should this process be killed.
        held: descriptors that are to stay open for as long as the command runs.
        used: file in which to leave what the command used.

    Raises:
        OSError: there is no pseudo-terminal, or no more processes.
    """
    screen, theirs = pty.openpty()
    os.set_blocking(screen, False)
    _copy_size(screen)
    ours, control = socket.socketpair()
    person = os.dup(sys.stdin.fileno())
    try:
        passed = (control.fileno(), screen, output.fileno(), person, *held)
        process = subprocess.Popen(
            [sys.executable, watchdog.__file__, str(control.fileno()), *command],
            cwd=cwd,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            pass_fds=passed,
            preexec_fn=watchdog.take_terminal,
        )
        settings, name = container
        setup = watchdog.Setup(
            screen=screen,
            output=output.fileno(),
            person=person,
            modes=termios.tcgetattr(person),
            grace_s=grace_s,
            container=(settings.name, pickle.dumps(settings), name),
            used=used,
        )
        watchdog.send_setup(ours, setup)
    except OSError:
        os.close(screen)
        ours.close()
        raise
    finally:
        for descriptor in (theirs, person):
            os.close(descriptor)
        control.close()
    return Attended(process, screen, ours)


def attend(attended: Attended, output: IO[bytes], *, in_container: bool = False) -> int:
    """Join this terminal and the command's until it ends; return its return code.

    What the command prints goes to ``output`` too. Ctrl-Z suspends both it and this process.

    Args:
        attended: what :func:`start` returned.
        output: file that keeps what it prints.
        in_container: the command only stands for one in a container. Ctrl-Z would stop that one,
            where nobody can continue it: it suspends this process alone.
    """
    keyboard, screen, control = sys.stdin.fileno(), attended.screen, attended.control.fileno()
    sys.stdout.flush()
    copy = _Copy(output)
    typed = b""
    try:
        with _raw(keyboard) as modes, _sized(screen):
            inputs = [screen, keyboard, control]
            while screen in inputs:
                # What is typed faster than it is read waits here: nobody waits for anybody.
                heard = [each for each in inputs if each != keyboard or len(typed) < _MAX_TYPED]
                ready, writable, _ = select.select(heard, [screen] if typed else [], [], 0.2)
                if screen in ready:
                    said = _read(screen)
                    if said == b"":
                        break
                    copy.write(said or b"")
                if keyboard in ready:
                    more = _read(keyboard)
                    if more == b"":
                        inputs.remove(keyboard)
                    typed += more or b""
                    if in_container and _SUSPEND in typed:
                        typed = typed.replace(_SUSPEND, b"")
                        modes.suspend()
                        _copy_size(screen)
                if writable:
                    with contextlib.suppress(OSError):
                        typed = typed[os.write(screen, typed) :]
                if control in ready:
                    if _read(control):
                        modes.suspend()
                        _copy_size(screen)
                        with contextlib.suppress(OSError):
                            attended.control.send(bytes([signal.SIGCONT]))
                    else:
                        inputs.remove(control)
                if not ready and attended.process.poll() is not None:
                    break
    finally:
        # To the watchdog, should it still be there, this is the end of the launcher.
        attended.control.close()
        os.close(screen)
    returncode = attended.process.wait()
    if returncode != 0:
        copy.show(_RESET)
    copy.close()
    return returncode


def tee(process: subprocess.Popen[bytes], output: IO[bytes]) -> int:
    """Show what a command prints as it comes, without a terminal; return its return code."""
    assert process.stdout is not None
    copy = _Copy(output)
    sys.stdout.flush()
    while said := os.read(process.stdout.fileno(), _CHUNK):
        copy.write(said)
    copy.close()
    return process.wait()


class _Copy:
    """Shows what is said and keeps it. Where one of the two fails, the other goes on."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._problem = ""

    def write(self, said: bytes) -> None:
        if not self._problem:
            try:
                _write(self._output.fileno(), said)
            except OSError as error:
                self._problem = f"\r\nlauncher: {self._output.name}: {error.strerror}\r\n"
        self.show(said)

    def show(self, said: bytes) -> None:
        screen = sys.stdout.fileno()
        try:
            _write(screen, said)
        except OSError:
            _show_nowhere()

    def close(self) -> None:
        if self._problem:
            self.show(self._problem.encode(errors="surrogateescape"))


class _Modes:
    """This terminal's modes: raw while a command is attended, as they were while it is not."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before = termios.tcgetattr(descriptor)

    def set_raw(self, _signum: int = 0, _frame: FrameType | None = None) -> None:
        with contextlib.suppress(termios.error):  # it was closed
            tty.setraw(self._descriptor, termios.TCSADRAIN)

    def restore(self) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def suspend(self) -> None:
        """Stop, as the shell expects of all processes of its job, until it continues them."""
        self.restore()
        os.kill(0, signal.SIGTSTP)
        self.set_raw()


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[_Modes]:
    modes = _Modes(descriptor)
    # A shell that continues this process, whoever stopped it, has set modes of its own.
    before = signal.signal(signal.SIGCONT, modes.set_raw)
    try:
        modes.set_raw()
        yield modes
    finally:
        signal.signal(signal.SIGCONT, before)
        modes.restore()


@contextlib.contextmanager
def _sized(screen: int) -> Iterator[None]:
    """Keep the command's terminal at the size of this one."""

    before = signal.signal(signal.SIGWINCH, lambda _signum, _frame: _copy_size(screen))
    _copy_size(screen)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy_size(screen: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(screen, termios.TIOCSWINSZ, size)


def _show_nowhere() -> None:
    """Print to nowhere from now on: the terminal was closed, or who read from this pipe left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _read(descriptor: int) -> bytes | None:
    """Return what there is; nothing at the end, None when there is nothing now."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:  # EIO: the last process that had it open is gone
        return b""


def _write(descriptor: int, said: bytes) -> None:
    while said:
        said = said[os.write(descriptor, said) :]
