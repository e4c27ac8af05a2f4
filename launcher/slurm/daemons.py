"""slurmstepd, of which one stands over a job's script and one over each of its steps.

It alone tells SLURM that what it stands over has ended. Where one is killed, srun waits for ever,
or slurmctld does: the job would keep its nodes until its time is over, and what waits for it would
wait as long (tried with Slurm 22.05). So a stage that has lost one is ended, and its job cancelled.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from launcher.errors import LauncherError
from launcher.job.stop_request import StopRequest
from launcher.processes.identity import ProcessId
from launcher.slurm import client as slurm_client

# In the environment of the job process: the parent of its job's script, as the script knew it.
SCRIPT_PARENT = "LAUNCHER_SCRIPT_PARENT"
LOST = "slurmstepd, which stood over the script of its job, was killed"
_NAME = b"slurmstepd"
_POLL_S = 1.0


class StepDaemons:
    """Watches over the daemons of this job on this node for as long as it is entered.

    Args:
        stop: has the stage ended when the one over the script is killed. Of the death of its own
            parent a job process hears from the kernel.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop, self._parent = stop, os.getppid()
        self._of_script = _script_daemon()
        self._left = threading.Event()

    def __enter__(self) -> StepDaemons:
        if self._of_script is not None:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if os.getppid() != self._parent or self._is_lost():
            _cancel_unless_ending()

    def _watch(self) -> None:
        while not self._left.wait(_POLL_S):
            if self._is_lost():
                return self._stop.request(LOST)

    def _is_lost(self) -> bool:
        return self._of_script is not None and not self._of_script.is_alive()


def _cancel_unless_ending() -> None:
    """Cancel this job, unless SLURM itself is ending it: then its daemons end in their own time.

    One that is put back into the queue has the same id, and would be cancelled there.
    """
    job_id = os.environ["SLURM_JOB_ID"]
    restart_count = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    with suppress(LauncherError):  # SLURM does not answer, and would not take it either
        if slurm_client.ending(job_id, restart_count) is None:
            slurm_client.cancel(job_id, force=False)


def _script_daemon() -> ProcessId | None:
    """Return the daemon over the script; None on a node that has it not, or not to be seen."""
    told = os.environ.get(SCRIPT_PARENT, "")
    if not told.isdigit() or os.environ.get("SLURM_NODEID", "0") != "0":
        return None
    try:
        command = Path(f"/proc/{told}/cmdline").read_bytes()
    except OSError:
        return None
    return ProcessId.of(int(told)) if command.startswith(_NAME) else None
