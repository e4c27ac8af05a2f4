"""A person at a terminal: types, reads, resizes the window, closes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"

_COLOURS = re.compile("\x1b\\[[0-9;]*m")


def _be_at_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # What the shell that runs the tests has set is not to be inherited.
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


class Person:
    """Sits at a pseudo-terminal in which a command runs."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        rows: int = 30,
        columns: int = 100,
    ) -> None:
        self._ours, self.theirs = pty.openpty()
        self.resize(rows, columns)
        self.seen = ""
        self._read_to = {True: 0, False: 0}
        self.modes_before = self.modes()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**env, "TERM": "xterm-256color"},
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=_be_at_terminal,
        )

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self._ours, self.theirs):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def enter(self, line: str) -> None:
        """Type a line."""
        self.type(line + "\r")

    def interrupts(self, pattern: str) -> re.Match[str]:
        """Press Ctrl-C, and once more each second, until something shows up.

        A Python that is just about to wait for input hears of no signal before the next one.
        """
        for _ in range(20):
            self.type(CTRL_C)
            try:
                return self.reads(pattern, 1)
            except AssertionError:
                if self.process.poll() is not None:
                    raise
        return self.reads(pattern, 0)

    def reads(self, pattern: str, timeout_s: float = 30, *, colours: bool = False) -> re.Match[str]:
        """Wait until something shows up on the screen, after all that was waited for before.

        What sets colours is not seen, unless it is asked for.
        """
        end = time.monotonic() + timeout_s
        while True:
            is_last = self.process.poll() is not None and not self._look(0)
            text = self.seen if colours else _COLOURS.sub("", self.seen)
            match = re.compile(pattern, re.MULTILINE).search(text, self._read_to[colours])
            if match:
                self._read_to[colours] = match.end()
                return match
            rest = text[self._read_to[colours] :]
            assert time.monotonic() < end, f"no {pattern!r} on the screen; it shows:\n{rest}"
            assert not is_last, f"no {pattern!r}, and the command has ended; it showed:\n{rest}"
            self._look(0.1)

    def leaves(self, timeout_s: float = 30) -> int:
        """Wait for the end of the command, and return its return code."""
        end = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on; the screen shows:\n{self.seen}"
            self._look(0.05)
        while self._look(0):
            pass
        return self.process.returncode

    def resize(self, rows: int, columns: int) -> None:
        """Pull at a corner of the window."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> list[object]:
        """Return the terminal's modes."""
        return termios.tcgetattr(self.theirs)

    def close_window(self) -> None:
        """Close the terminal."""
        os.close(self.theirs)
        os.close(self._ours)

    def _look(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        try:
            said = os.read(self._ours, 65536)
        except OSError:
            return False
        self.seen += said.decode(errors="replace")
        return bool(said)
