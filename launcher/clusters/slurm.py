"""SLURM: one sbatch job per stage, chained by ``afterok``, submitted in one go.

submitit makes the scripts and the pickles. What it leaves out is done here: dependencies, a first
job that is held until the whole chain is in the queue, no time limit of its own (its default is
five minutes), no pause between submissions (0.2 s each), names of folders that hold ``%j``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit
from submitit.core import utils
from submitit.slurm.slurm import SlurmJob

from launcher.clusters.base import JobHandle, JobState
from launcher.containers.base import Feature
from launcher.errors import LauncherError, RecordError
from launcher.job.stage_job import StageJob
from launcher.private import sha256
from launcher.records import LAUNCH, LaunchRecords
from launcher.settings.ranges import number, seconds
from launcher.slurm import client as slurm_client
from launcher.slurm.allocation import allocation
from launcher.slurm.capacity import check_fits
from launcher.slurm.ending import settled
from launcher.slurm.script import (
    WARNING_SIGNAL,
    sbatch_command,
    sbatch_options,
    script_text,
)
from launcher.status import (
    LET_START,
    RUNNING,
    UNKNOWN,
    JobStatus,
    chain_status,
)

__all__ = ["Implementation", "Settings", "allocation", "settled"]

if TYPE_CHECKING:
    from launcher.launch import Job, Launch

# The event that names the SLURM that a launch was submitted to.
_SCHEDULER = "scheduler"


@dataclass
class Settings:
    """``cluster.*`` of the configuration; each may be given for one stage alone.

    Attributes:
        partition: partition, or several, separated by commas.
        account: account that is charged.
        qos: quality of service.
        gres: generic resources, such as ``gpu:a100:2``, in place of ``gpus_per_node``.
        constraint: features that the node must have.
        sbatch: further options of sbatch by their long names: ``{exclude: node7}``.
        srun_args: further arguments of srun, which starts the job process.
        setup: shell lines that the script runs before, such as ``module load``.
        kill_on_invalid_dep: have SLURM cancel what waits for a stage that failed.
        requeue: let SLURM run a stage again, under the same job id, when it took its nodes away.
        max_num_timeout: how often a stage that saved its work when its time was nearly over is put
            back into the queue to go on; 0 for never.
        signal_delay_s: seconds before the time limit at which a stage that listens is warned; in
            the last quarter of the time at the earliest.
        python: interpreter of the job process; the launcher's own when not set.
    """

    name: str = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    constraint: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    srun_args: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    kill_on_invalid_dep: bool = True
    requeue: bool = True
    max_num_timeout: int = number(3, least=0, most=1000)
    signal_delay_s: float = seconds(90, least=0, most=65535)
    python: str | None = None


class ChainExecutor(submitit.SlurmExecutor):
    """submitit's executor, with what a chain needs given to sbatch.

    submitit replaces ``%j`` and the like in every part of its folder's path, so it is given names
    of the folder that have no such part: here a descriptor, in the jobs their working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.real_folder = folder
        self.script = ""
        self.options: list[str] = []
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        super().__init__(f"/proc/self/fd/{self._descriptor}")
        self._throttling = 0.0  # sbatch asks slurmctld once per job, as any loop of sbatch does

    def _submit_command(self, command: str) -> SlurmJob[Any]:
        done = slurm_client.sbatch(self.options, self.script)
        job_id = self._get_job_id_from_submission_command(done)
        (self.real_folder / f"{job_id}_submission.sh").write_bytes(os.fsencode(self.script))
        return SlurmJob(folder=self.folder, job_id=job_id, tasks=[0])


class SlurmCluster:
    """Jobs are sbatch's."""

    name = "slurm"
    falls_back_to_host = False
    keeps = frozenset({Feature.MEMORY_LIMIT, Feature.CPU_LIMIT})
    preferred_containers: tuple[str, ...] = ("apptainer", "docker", "podman")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._executor: ChainExecutor | None = None
        self._ids: dict[str, str] = {}
        self._folder: Path | None = None
        self._home: str | None = None
        self._here: str | None = None

    def check(self, launch: Launch) -> None:
        """Have sbatch say of each stage whether it could ever run, before anything is queued."""
        if shutil.which("sbatch") is None:
            raise LauncherError(
                "there is no sbatch here. Type the command on a login node of the cluster, or use "
                "--cluster local."
            )
        tested: list[dict[str, Any]] = []
        for job in launch.jobs:
            # Names apart, stages that ask for the same are one question.
            asked = {**sbatch_options(job, launch.experiment), "job-name": ""}
            if asked not in tested:
                tested.append(asked)
                check_fits(self._script(job, launch), job.stage, _asked(job))

    def preview(self, launch: Launch, directory: Path) -> Mapping[str, str]:
        """Return the command and the script of each stage."""
        shown = {}
        for job in launch.jobs:
            options = self._options(job, f"JOB-ID-OF-{job.after}")
            shown[job.stage] = sbatch_command(options, self._script(job, launch))
        return shown

    def submit(self, job: Job, launch: Launch, records: LaunchRecords) -> JobHandle:
        """Give the job to sbatch: held if it is the first, else after the one before."""
        if self._executor is None:
            folder = _folder(records.directory)
            folder.mkdir(mode=0o700)
            self._executor = ChainExecutor(folder)
            with suppress(LauncherError):
                records.append(LAUNCH, _SCHEDULER, cluster=slurm_client.cluster_name())
        executor = self._executor
        executor.script = self._script(job, launch)
        executor.options = self._options(job, self._ids.get(job.after or "", ""))
        try:
            submitted = executor.submit(StageJob(records.directory, job))
        except utils.FailedSubmissionError as error:
            raise LauncherError(str(error)) from error
        submitted.paths.submitted_pickle.chmod(0o600)
        self._ids[job.stage] = submitted.job_id
        return JobHandle(submitted.job_id, None, sha256(submitted.paths.submitted_pickle))

    def release(self, records: LaunchRecords) -> None:
        """Release the first job, which was submitted held."""
        slurm_client.release(next(iter(self._ids.values())))
        with suppress(RecordError):  # it is on its way
            records.append(LAUNCH, LET_START)

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        """Have a stage that runs stopped by its job, any other job by scancel.

        scancel signals every process of a job: what serves the image of an Apptainer container
        would be gone before the stage has saved its work. With ``force``, all are killed at once.

        Raises:
            LauncherError: the job of this id is not the launch's.
        """
        if status.job_id is None:
            return
        if self._is_elsewhere():
            self.check_reach()
        queued = slurm_client.queued(status.job_id)
        if queued is not None and not self._is_ours(queued.folder):
            raise LauncherError(
                f"SLURM's job {status.job_id} is not {status.stage}'s any more: it works in "
                f"{queued.folder}. It was left alone."
            )
        is_running = queued is not None and queued.state == "RUNNING"
        if is_running and status.state == RUNNING and not force:
            slurm_client.ask_to_stop(status.job_id, WARNING_SIGNAL)
        else:
            slurm_client.cancel(status.job_id, force=force)

    def belongs_to(self, records: LaunchRecords) -> None:
        """Learn the ClusterName of the SLURM that the jobs are on; older launches do not tell."""
        self._folder = _folder(records.directory)
        told = [each for each in records.events(LAUNCH) if each["event"] == _SCHEDULER]
        self._home = str(told[0].get("cluster")) if told else None

    def check_reach(self) -> None:
        """See that SLURM answers, and that it is the one that the jobs are on."""
        self._here = slurm_client.cluster_name()
        if self._is_elsewhere():
            raise LauncherError(
                f"this launch was submitted to SLURM cluster {self._home}, and this shell talks to "
                f"{self._here}. Load what your site sets for {self._home}, or set SLURM_CONF to "
                "its slurm.conf."
            )

    def _is_elsewhere(self) -> bool:
        if self._home is not None and self._here is None:
            with suppress(LauncherError):
                self._here = slurm_client.cluster_name()
        return None not in (self._home, self._here) and self._home != self._here

    def _is_ours(self, folder: str) -> bool:
        """Tell whether a job works in the launch's folder, by whatever path it got there."""
        return self._folder is None or Path(folder).parts[-2:] == self._folder.resolve().parts[-2:]

    def sweep(self, records: LaunchRecords) -> None:
        """Cancel the jobs in the queue that are not on record, and yet of this launch.

        The launcher was killed as soon as sbatch had submitted one; or sbatch did not live to hear
        slurmctld say that it had it.
        """
        events = records.events(LAUNCH)
        known = {event["job_id"] for event in events if event["event"] == "submitted"}
        for job_id in slurm_client.jobs_in(_folder(records.directory)):
            if job_id not in known:
                slurm_client.cancel(job_id, force=False)

    def states(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Ask squeue, and sacct for what squeue has forgotten."""
        if self._is_elsewhere():
            reason = f"on SLURM cluster {self._home}, which this shell does not talk to"
            return {job_id: JobState(UNKNOWN, reason) for job_id in job_ids}
        return slurm_client.states(job_ids)

    def _options(self, job: Job, upstream_id: str) -> list[str]:
        if job.after is None:
            return ["--hold", *self._behind(job)]
        kill = "yes" if job.settings.cluster.kill_on_invalid_dep else "no"
        return [f"--dependency=afterok:{upstream_id}", f"--kill-on-invalid-dep={kill}"]

    def _behind(self, job: Job) -> list[str]:
        """Return what has a job wait for the launches that it is queued behind."""
        chains = (chain_status(LaunchRecords(directory), self) for directory in job.behind)
        left = [each for chain in chains for each in chain if not each.has_ended]
        ids = [each.job_id for each in left if each.job_id is not None]
        return [f"--dependency={','.join(f'afterany:{each}' for each in ids)}"] if ids else []

    def _script(self, job: Job, launch: Launch) -> str:
        from launcher.recipe import default_python

        python = job.settings.cluster.python or default_python()
        return script_text(_folder(launch.directory), python, job, launch.experiment)


Implementation = SlurmCluster


def _folder(directory: Path) -> Path:
    """Return the folder of submitit's files in a launch directory."""
    return directory / "submitit"


def _asked(job: Job) -> dict[str, object]:
    """Return what a stage asks for of nodes, by the names of the settings."""
    resources, settings = job.settings.resources, job.settings.cluster
    names = ("nodes", "cpus_per_task", "mem_gb", "gpus_per_node", "timeout_min")
    chosen = ("gres", "partition", "account", "qos", "constraint")
    return {
        **{name: getattr(resources, name) for name in names},
        **{name: getattr(settings, name) for name in chosen},
        **{f"sbatch.{name}": value for name, value in settings.sbatch.items()},
    }
