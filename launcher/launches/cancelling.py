"""Cancelling a launch, or a stage and all that comes after it, and waiting until it is so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.clusters.base import NamedCluster, SweepingCluster
from launcher.launches import cluster_and_grace
from launcher.private import check_unwritten
from launcher.status import PENDING, RUNNING, chain_status, job_status
from launcher.submission import cancel

if TYPE_CHECKING:
    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords

# After the time that a stage has to stop: what its guard and its job take to record it.
_SLACK_S = 10.0
_POLL_S = 0.1
_ASK_EVERY_S = 1.0


@dataclass(frozen=True)
class Cancellation:
    """What was cancelled. ``deadline`` is of ``time.monotonic``: by then it is to have ended."""

    records: LaunchRecords
    cluster: Cluster
    stages: tuple[str, ...]
    deadline: float

    def wait(self) -> list[str]:
        """Wait until the stages have ended; return those that have not, in time."""
        asked_s = time.monotonic()
        while lasting := self._lasting(None):
            if time.monotonic() > self.deadline:
                break
            if time.monotonic() > asked_s + _ASK_EVERY_S:
                asked_s = time.monotonic()
                lasting = self._lasting(self.cluster)
                if not lasting:
                    break
            time.sleep(_POLL_S)
        return lasting

    def _lasting(self, cluster: Cluster | None) -> list[str]:
        chain = chain_status(self.records, cluster)
        return [each.stage for each in chain if each.stage in self.stages and not each.has_ended]


def start_cancelling(
    records: LaunchRecords, stages: Sequence[str] = (), *, force: bool = False
) -> Cancellation:
    """Ask the jobs of stages to stop, and of all that come after them; of all when none is named.

    Args:
        records: of the launch.
        stages: their names.
        force: kill them without asking.

    Raises:
        LauncherError: the cluster of the launch cannot be reached from here.
    """
    check_unwritten(records.directory)
    cluster, stop_grace_s = cluster_and_grace(records)
    if isinstance(cluster, NamedCluster) and not all(
        status.has_ended for status in chain_status(records)
    ):
        cluster.check_reach()
    wanted = with_downstream(records, stages)
    still_open = [stage for stage in _open_stages(records, cluster) if stage in wanted]
    asked = cancel(records, still_open, cluster, force=force)
    if isinstance(cluster, SweepingCluster) and not stages:
        cluster.sweep(records)
    deadline = time.monotonic() + stop_grace_s + _SLACK_S
    return Cancellation(records, cluster, tuple(asked), deadline)


def with_downstream(records: LaunchRecords, stages: Sequence[str]) -> list[str]:
    """Return the stages and all that come after them, in order; all when none is named."""
    wanted: list[str] = []
    for job in records.read_launch()["jobs"]:
        if not stages or job["stage"] in stages or job.get("after") in wanted:
            wanted.append(str(job["stage"]))
    return wanted


def _open_stages(records: LaunchRecords, cluster: Cluster) -> list[str]:
    """Return the stages of which no end is on record, unless the scheduler has ended their jobs."""
    jobs = [job_status(records, job["stage"]) for job in records.read_launch()["jobs"]]
    left = [status for status in jobs if not status.has_ended]
    told = cluster.states([status.job_id for status in left if status.job_id is not None])
    gone = {job_id for job_id, each in told.items() if each.state not in (PENDING, RUNNING)}
    return [status.stage for status in left if status.job_id not in gone]
