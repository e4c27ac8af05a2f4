"""What the launcher asks of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from launcher.containers.base import Feature

if TYPE_CHECKING:
    from launcher.job.outcome import Outcome
    from launcher.job.stop_request import StopRequest
    from launcher.launch import Job, Launch
    from launcher.processes.identity import ProcessId
    from launcher.processes.interrupts import Interrupts
    from launcher.records import LaunchRecords
    from launcher.status import JobStatus


@dataclass(frozen=True)
class JobHandle:
    """A submitted job.

    Attributes:
        job_id: the cluster's id of it.
        process: its process, where that is on this host.
        pickle_sha256: digest of what the job loads; None where it loads nothing.
    """

    job_id: str
    process: ProcessId | None = None
    pickle_sha256: str | None = None


@dataclass(frozen=True)
class JobState:
    """What a scheduler says of a job.

    Attributes:
        state: one of ``launcher.status``, told by the scheduler's own state.
        reason: in the scheduler's words, such as ``CANCELLED by 1000`` or ``Resources``.
    """

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Allocation:
    """What a job got, as it is told on its node.

    Attributes:
        node: name of the node.
        gpus: ids of this node's GPUs for this job, as the host's driver counts them.
        visible_gpus: how processes of the job name them; None: by their ids.
        rank: of this node among the job's nodes.
        num_nodes: of the job.
        master: host name of its first node.
        restart_count: how often the job was put back into the queue.
        record: partition, CPUs, memory and the like, for the stage's metadata.
        held: descriptors of what is locked for the job. The process that stands over the stage
            inherits them, so that nothing is given to another stage before this one is gone.
    """

    node: str
    gpus: tuple[str, ...] = ()
    visible_gpus: tuple[str, ...] | None = None
    rank: int = 0
    num_nodes: int = 1
    master: str = "localhost"
    restart_count: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    held: tuple[int, ...] = ()


class Cluster(Protocol):
    """Submits and cancels jobs. What becomes of a job is read from the records.

    A cluster is one module in this package and one YAML in ``conf/cluster``. Its module has
    ``Settings``, ``Implementation``, and ``allocation``, which a job calls on its node; and, where
    more is to be said of how a stage ended than its process tells, ``settled``.
    """

    name: str

    #: Whether a stage may run on the host when ``container=auto`` finds no runtime that works.
    falls_back_to_host: bool
    #: Limits that the cluster itself keeps to, by admission or by force, whatever the runtime does.
    keeps: frozenset[Feature]
    #: The order in which ``container=auto`` tries runtimes.
    preferred_containers: tuple[str, ...]

    def check(self, launch: Launch) -> None:
        """Refuse what this cluster cannot do, before anything is submitted.

        Raises:
            ConfigError: a setting asks for more than it has.
            LauncherError: it does not answer.
        """

    def preview(self, launch: Launch, directory: Path) -> Mapping[str, str]:
        """Return, for each stage, what the cluster would be given, as ``--dry-run`` shows it.

        Args:
            launch: what would be submitted.
            directory: the launch directory that it would have.
        """

    def submit(self, job: Job, launch: Launch, records: LaunchRecords) -> JobHandle:
        """Hand one job over, to start when the job before it (``job.after``) is done.

        The first job of a chain is held until :meth:`release`.

        Raises:
            OSError, RuntimeError, LauncherError: the job was refused.
        """

    def release(self, records: LaunchRecords) -> None:
        """Let the first job of a chain start: the whole chain is on record.

        Raises:
            OSError, RuntimeError, LauncherError: as above.
        """

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        """Ask a job to stop; with ``force``, end it without asking."""

    def states(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Ask the scheduler for jobs that have recorded no end; one it does not know is left out.

        Empty for a cluster without a scheduler, or when it does not answer.
        """


@runtime_checkable
class ForegroundCluster(Protocol):
    """What a cluster has besides when its jobs are run by the launcher itself."""

    def attend(self, records: LaunchRecords, interrupts: Interrupts) -> int:
        """Run the jobs that were submitted, show what became of them, return the exit status."""


@runtime_checkable
class SweepingCluster(Protocol):
    """What a cluster has besides when it may have taken a job of which the launcher knows no id."""

    def sweep(self, records: LaunchRecords) -> None:
        """Cancel the jobs of a launch that are not on record."""


@runtime_checkable
class NamedCluster(Protocol):
    """What a cluster has besides when another may answer in its place, which knows other jobs."""

    def belongs_to(self, records: LaunchRecords) -> None:
        """Learn from a launch's records which cluster its jobs were given to."""

    def check_reach(self) -> None:
        """See that the cluster that answers here is the launch's.

        Raises:
            LauncherError: it is another, or none answers; with what to type.
        """


class AllocationOf(Protocol):
    """``allocation`` of a cluster's module."""

    def __call__(self, job: Job, settings: Any) -> AbstractContextManager[Allocation]:
        """Hold what the job was given for as long as the context is entered."""


class SettledBy(Protocol):
    """``settled`` of a cluster's module, where it has one."""

    def __call__(
        self,
        outcome: Outcome,
        job: Job,
        allocation: Allocation,
        records: LaunchRecords,
        stop: StopRequest,
    ) -> Outcome:
        """Return how a stage ended, given how its process on this node did."""
