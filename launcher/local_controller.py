"""submitit's controller of a local job, under which nothing outlives the job: ``… FOLDER``.

It adopts what loses its parent. Should the job and its guard be killed together, by SIGKILL, what
the stage had started is still found here. A guard that lost its job first gets the time that it
allows its stage.
"""

from __future__ import annotations

import runpy
import time

from launcher import guard

_POLL_S = 0.1


def main() -> None:
    """Run the controller to its end, then end what is left below it."""
    guard.adopt_orphans()
    try:
        runpy.run_module("submitit.local._local", run_name="__main__", alter_sys=True)
    finally:
        deadline = time.monotonic() + guard.MAX_GRACE_WITHOUT_JOB_S + 1
        while guard.has_children() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        guard.kill_descendants()


if __name__ == "__main__":
    main()
