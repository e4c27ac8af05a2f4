"""A shell in a pseudo-terminal: what a person types into it, and what is shown there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

# The prompt tells the exit status of what was typed before, between characters that nobody sees.
_PROMPT = re.compile(r"\x1e(\d+)\x1e\$ \Z")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A window with a shell, so wide that no table of the launcher is broken."""

    columns = 120

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, self.columns, 0, 0))
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--noprofile", "--norc", "--noediting"],
            cwd=folder,
            env={**environment, "PS1": r"\036$?\036$ ", "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._read_to_prompt(10)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shell.returncode is None:
            self.close()

    def type(self, command: str, timeout_s: float = 120) -> str:
        """Type a command; return what the terminal shows from its prompt to the next one.

        Raises:
            AssertionError: it did not succeed, or not in time.
        """
        os.write(self._screen, f"{command}\n".encode())
        shown, status = self._read_to_prompt(timeout_s)
        assert status == 0, f"{command} → {status}\n{shown}"
        return f"$ {shown}"

    def close(self) -> int:
        """Close the window, of which the kernel tells the shell by SIGHUP; return how it ended."""
        os.close(self._screen)
        return self._shell.wait(20)

    def _read_to_prompt(self, timeout_s: float) -> tuple[str, int]:
        end_s = time.monotonic() + timeout_s
        said = b""
        while True:
            shown = _TERMINAL_CODES.sub("", said.decode(errors="replace")).replace("\r\n", "\n")
            if prompt := _PROMPT.search(shown):
                return shown[: prompt.start()], int(prompt[1])
            left_s = end_s - time.monotonic()
            ready, _, _ = select.select([self._screen], [], [], max(left_s, 0))
            assert ready, f"no prompt within {timeout_s:g} s:\n{shown}"
            said += os.read(self._screen, 65536)
