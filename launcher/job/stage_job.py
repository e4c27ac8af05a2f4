"""The job of one stage: the callable that submitit runs, on whatever node the cluster chose.

It waits for its turn where the cluster does not, runs the stage there (``stage_run.py``), and
records what became of it. It lives on the host, outside of any container.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import registry
from launcher.clusters.base import Allocation
from launcher.errors import RecordError, StageFailed
from launcher.job import guard
from launcher.job.outcome import Outcome
from launcher.job.recording import record_end
from launcher.job.stage_run import StageRun
from launcher.job.stop_request import StopRequest
from launcher.processes.identity import signal_on_parent_death
from launcher.records import LaunchRecords
from launcher.status import CANCELLED, DONE, FAILED, cancel_requested

if TYPE_CHECKING:
    from launcher.launch import Job


@dataclass(frozen=True)
class StageJob:
    """Callable for submitit.

    Attributes:
        launch_dir: where to record.
        job: what to run.
        in_foreground: whether what the stage prints is shown here as well.
    """

    launch_dir: Path
    job: Job
    in_foreground: bool = False

    def __call__(self) -> None:
        """Run the stage to its end.

        Raises:
            StageFailed: it did not complete; submitit and the cluster record a failed job.
        """
        records = LaunchRecords(self.launch_dir)
        try:
            with StopRequest(in_foreground=self.in_foreground) as stop:
                self._run(records, stop)
        except (StageFailed, RecordError):
            raise
        except Exception as error:
            # Without a word of it on record it would look as if the job had been killed.
            reason = f"its job failed by itself: {type(error).__name__}: {error}"
            record_end(records, self.job.stage, Outcome(FAILED, reason))
            raise

    def _run(self, records: LaunchRecords, stop: StopRequest) -> None:
        parent_pid = _parent_pid()
        if not self.in_foreground:  # there the parent is a shell, which may go
            signal_on_parent_death(signal.SIGTERM, parent_pid)
        guard.adopt_orphans()  # what a guard that was itself killed leaves behind
        if cancel_requested(records, self.job.stage):
            stop.request()  # its signal came before there was anybody to hear it
        cluster = registry.load("clusters", self.job.settings.cluster.name)

        def settled(outcome: Outcome, allocation: Allocation | None = None) -> Outcome:
            is_lost = not self.in_foreground and os.getppid() != parent_pid
            is_lost = is_lost and not cancel_requested(records, self.job.stage)
            if outcome.state == CANCELLED and is_lost:
                reason = "the process that holds its job was killed"
                return replace(outcome, state=FAILED, reason=reason)
            if allocation is None or not hasattr(cluster, "settled"):
                return outcome
            told: Outcome = cluster.settled(outcome, self.job, allocation, records, stop)
            return told

        rank = attempt = 0
        used: Mapping[str, Any] = {}
        with cluster.allocation(self.job, records, stop) as granted:
            if isinstance(granted, Allocation):
                rank, attempt = granted.rank, granted.restart_count
                stage_run = StageRun(
                    self.job, records, stop, granted, in_foreground=self.in_foreground
                )
                outcome = stage_run.run(settled)
                used = stage_run.used
            else:
                outcome = settled(granted)
            guard.kill_descendants()  # before what it was allocated is given to others
        if rank == 0:
            record_end(records, self.job.stage, outcome, attempt, used)
        if outcome.state != DONE:
            raise StageFailed(f"{self.job.stage} {outcome.state}: {outcome.reason}")


def _parent_pid() -> int:
    """Return the process that holds this job, be it still there or not."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # there its id is the job's
        return int(os.environ["SUBMITIT_LOCAL_JOB_ID"])
    return os.getppid()
