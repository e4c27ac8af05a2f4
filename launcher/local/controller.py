"""submitit's controller of a local job, under which nothing outlives the job: ``… FOLDER``.

It adopts what loses its parent. Should the job and its guard be killed together, by SIGKILL, what
the stage had started is still found here. A guard that lost its job first gets the time that it
allows its stage; what the job has left open is then closed here.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from contextlib import suppress
from pathlib import Path

from launcher.errors import LauncherError
from launcher.job import guard

_POLL_S = 0.1


def main() -> None:
    """Run the controller to its end, then end what is left below it."""
    folder = Path(sys.argv[1]).resolve()
    guard.adopt_orphans()
    try:
        runpy.run_module("submitit.local._local", run_name="__main__", alter_sys=True)
    finally:
        deadline = time.monotonic() + guard.MAX_GRACE_WITHOUT_JOB_S + 1
        while guard.has_children() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        guard.kill_descendants()
        _close(folder)


def _close(folder: Path) -> None:
    """Close the record of a job process that was killed."""
    from launcher.records import LAUNCH, LaunchRecords
    from launcher.status import lost

    records = LaunchRecords(folder.parent)
    with suppress(LauncherError):
        for event in records.events(LAUNCH):
            if event["event"] == "submitted" and event["job_id"] == str(os.getpid()):
                status = lost(records, event["stage"])
                if status.ended is None and status.started is not None:
                    from launcher.job import lost_job  # takes its time to import

                    lost_job.close(records, status)


if __name__ == "__main__":
    main()
