"""Processes that a stage has left on this machine, found by what stands in their environment.

Those of a container carry it too, and run under the user's own id: they are found here, whatever
has become of the runtime that started them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from launcher.job import guard

_POLL_S = 0.1
_KILL_PATIENCE_S = 5.0


def end_left(find: Callable[[], list[int]], *, ask: bool) -> None:
    """End processes until none is found; those of a guard have as long as it may take.

    Args:
        find: returns what is left.
        ask: whether a guard is to be asked; otherwise it knows already.
    """
    asked: set[int] = set()
    guarded_until = time.monotonic() + guard.MAX_GRACE_WITHOUT_JOB_S + 1
    give_up = guarded_until + _KILL_PATIENCE_S
    while (left := find()) and time.monotonic() < give_up:
        guards = [pid for pid in left if _is_guard(pid)]
        if time.monotonic() > guarded_until or not guards:
            _send(left, signal.SIGKILL)
        elif ask:
            _send([pid for pid in guards if pid not in asked], signal.SIGTERM)
            asked.update(guards)
        time.sleep(_POLL_S)


def carrying(variables: set[bytes]) -> dict[int, set[bytes]]:
    """Return this user's processes with these variables, ``NAME=value``, and all that each has."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another's
            environment = set((process / "environ").read_bytes().split(b"\0"))
            if variables <= environment and process.stat().st_uid == os.getuid():
                found[int(process.name)] = environment
    found.pop(os.getpid(), None)
    return found


def _is_guard(pid: int) -> bool:
    with suppress(OSError):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        # In a container, an init such as tini may stand before it, with the guard in its arguments.
        return any(each.endswith(b"/guard.py") for each in arguments[:5])
    return False


def _send(pids: list[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)
