"""What the launcher asks of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from launcher.launch import Job, Launch
    from launcher.process import ProcessId
    from launcher.records import LaunchRecords
    from launcher.status import JobStatus


@dataclass(frozen=True)
class JobHandle:
    """A submitted job: the cluster's id of it, and its process where that is on this host."""

    job_id: str
    process: ProcessId | None = None


class Cluster(Protocol):
    """Submits and cancels jobs. What becomes of a job is read from the records."""

    def submit(self, job: Job, launch: Launch, records: LaunchRecords) -> JobHandle:
        """Hand one job over, to start when the job before it (``job.after``) is done.

        Raises:
            OSError, RuntimeError, LauncherError: the job was refused.
        """

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        """Ask a job to stop; with ``force``, end it without asking."""
