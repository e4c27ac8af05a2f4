"""Identity of a process that outlives the one that started it.

A process id alone is reused by the kernel; together with the start time in ``/proc/<pid>/stat``
(field 22 of proc(5), clock ticks since boot), the boot id and the host it names one process for
ever.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class ProcessId:
    """One process on one host since one boot."""

    pid: int
    start_ticks: int
    boot_id: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Identify a process that runs now on this host."""
        _, start_ticks = _state_and_start(pid) or ("", 0)
        return cls(pid, start_ticks, _boot_id(), socket.gethostname())

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> ProcessId:
        """Read back what ``to_record`` gave."""
        return cls(**{name: record[name] for name in ("pid", "start_ticks", "boot_id", "host")})

    def to_record(self) -> dict[str, Any]:
        """Return the identity as JSON-able values."""
        return asdict(self)

    def is_alive(self) -> bool:
        """Tell whether this very process still runs; a zombie does not.

        Of a process on another host nothing can be told from here: it counts as alive.
        """
        if self.host != socket.gethostname():
            return True
        if self.boot_id != _boot_id():
            return False
        if sys.platform != "linux":
            return _exists(self.pid)
        state, start_ticks = _state_and_start(self.pid) or ("gone", -1)
        return start_ticks == self.start_ticks and state not in ("Z", "X")

    def send(self, signum: signal.Signals) -> bool:
        """Send a signal if this very process still runs; tell whether it was sent."""
        if self.host != socket.gethostname() or not self.is_alive():
            return False
        try:
            os.kill(self.pid, signum)
        except (ProcessLookupError, PermissionError):  # gone, or another person's
            return False
        return True


def signal_on_parent_death(signum: signal.Signals, parent_pid: int) -> None:
    """Have the kernel send this process a signal when its parent dies, however it dies (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the request was in place
        os.kill(os.getpid(), signum)


def _state_and_start(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name, field 2, is in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
