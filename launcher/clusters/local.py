"""This machine, with the semantics of SLURM: all jobs submitted at once, each after the one before.

submitit's local executor starts one controller process per job, and knows neither dependencies nor
jobs without a time limit (its default is two minutes). Here each job waits for the recorded end of
its upstream and for the GPUs that it asks for, and the controllers live in sessions of their own,
apart from the terminal.
"""

from __future__ import annotations

import itertools
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit
from submitit.local.local import LocalJob

from launcher.clusters.base import Allocation, JobHandle, JobState
from launcher.containers.base import Feature
from launcher.errors import ConfigError, LauncherError
from launcher.job import process as job_process
from launcher.job.copied_code import python_path
from launcher.job.outcome import Outcome
from launcher.job.stage_job import StageJob
from launcher.job.stop_request import StopRequest
from launcher.local import controller as local_controller
from launcher.local import gpus as local_gpus
from launcher.local.turns import wait_for_turn
from launcher.private import sha256
from launcher.processes.identity import ProcessId
from launcher.records import LaunchRecords
from launcher.settings.ranges import seconds
from launcher.status import (
    FAILED,
    JobStatus,
)

if TYPE_CHECKING:
    from launcher.launch import Job, Launch

_NO_LIMIT_S = 10 * 365 * 24 * 3600
# A job takes some 0.6 s of processor time before it waits. Were all to take it at once, the first
# stage of a chain would start seconds later. No stage is over before the next job is ready.
_HEAD_START_S = 0.3
# To a job process: kill the stage. Those who do not know of it, as before they listen, end.
_FORCE = signal.SIGUSR1
# What a job process then has: a daemon may be slow to remove a container.
_FORCE_PATIENCE_S = 15.0
_FORCE_AGAIN_S, _FORCE_POLL_S = 0.25, 0.02


@dataclass
class Settings:
    """``cluster.*`` of the configuration.

    Attributes:
        poll_s: seconds between two looks at the job before.
        gpus: ids of the GPUs that stages may be given; None for all that nvidia-smi lists.
        gpu_locks: folder of the files by which stages hold them, the same for all who share them.
    """

    name: str = "local"
    poll_s: float = seconds(0.05, least=0.001, most=3600)
    gpus: list[str] | None = None
    gpu_locks: str = str(local_gpus.LOCKS)


@contextmanager
def allocation(
    job: Job, records: LaunchRecords, stop: StopRequest
) -> Iterator[Allocation | Outcome]:
    """Wait for the job's turn and its GPUs; give the reason where it is not to run."""
    settings: Settings = job.settings.cluster
    stop.act_on(_FORCE, stop.force)
    closed = wait_for_turn(job, records, stop, settings.poll_s)
    if closed is not None:
        yield closed
        return
    with allocated(
        job,
        stop,
        settings.gpus,
        settings.gpu_locks,
        on_wait=(lambda reason: records.append(job.stage, "waiting", upstream=reason)),
    ) as granted:
        yield granted


@contextmanager
def allocated(
    job: Job,
    stop: StopRequest,
    gpus: Sequence[str] | None,
    gpu_locks: str,
    *,
    on_wait: Callable[[str], object],
) -> Iterator[Allocation | Outcome]:
    """Give a job, whose turn it is, its part of this machine, and see to its time limit."""
    resources = job.settings.resources
    with ExitStack() as stack:
        try:
            held = stack.enter_context(
                local_gpus.held(
                    resources.gpus_per_node,
                    local_gpus.present(gpus),
                    should_stop=lambda: stop.requested,
                    on_wait=on_wait,
                    folder=Path(gpu_locks).expanduser(),
                )
            )
        except LauncherError as error:
            yield Outcome(FAILED, str(error))
            return
        if resources.timeout_min is not None:
            reason = f"out of time: its limit is {resources.timeout_min} min"
            stop.request_after(resources.timeout_min * 60, reason)
        record = {"cpus": resources.cpus_per_task or _num_cpus(), "mem_gb": resources.mem_gb}
        yield Allocation(
            node=os.uname().nodename, gpus=held.ids, record=record, held=held.descriptors
        )


class DetachedExecutor(submitit.LocalExecutor):
    """submitit's local executor, its controllers independent of terminal and launcher.

    submitit replaces ``%j`` and the like in every part of its folder's path, so it is given names
    of the folder that have no such part: here a descriptor, in the jobs their working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._real_folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        super().__init__(_name_in_proc(f"fd/{self._descriptor}", folder))
        self._folder_in_job = _name_in_proc("cwd", folder)
        self._throttling = 0.0  # meant to spare a scheduler; here there is none
        self._num_started = 0

    @property
    def _submitit_command_str(self) -> str:
        folder = shlex.quote(str(self._folder_in_job))
        return f"{self.python} -u -m {job_process.__name__} {folder}"

    def _submit_command(self, command: str) -> LocalJob[Any]:
        # As submitit.local.local.start_controller (1.5.4), but in a session of its own, holding no
        # stream of the launcher's (a pipe would stay open), without a limit, and with the GPUs
        # that are visible here left visible (submitit hides them unless a number is asked for).
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(self._real_folder.parent),
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(_NO_LIMIT_S),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
        }
        # `exec` keeps the process id, by which the job is known.
        delayed = ["sh", "-c", 'sleep "$0" && exec "$@"', f"{self._num_started * _HEAD_START_S:g}"]
        self._num_started += 1
        controller = subprocess.Popen(
            [*delayed, sys.executable, "-m", local_controller.__name__, str(self._folder_in_job)],
            env=environment,
            cwd=self._real_folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return LocalJob(self.folder, str(controller.pid), tasks=[0], process=controller)


class LocalCluster:
    """Jobs are processes of this machine."""

    name = "local"
    falls_back_to_host = True
    keeps = frozenset({Feature.MEMORY_LIMIT, Feature.CPU_LIMIT})
    preferred_containers: tuple[str, ...] = ("docker", "podman", "apptainer")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._executor: DetachedExecutor | None = None

    def check(self, launch: Launch) -> None:
        """Refuse what this machine has not got."""
        check_machine(launch, self.name)

    def preview(self, launch: Launch, directory: Path) -> Mapping[str, str]:
        """Nothing but the command itself is given to anybody."""
        return {}

    def submit(self, job: Job, launch: Launch, records: LaunchRecords) -> JobHandle:
        """Start the job's process, which waits for the job before it."""
        if self._executor is None:
            folder = records.directory / "submitit"
            folder.mkdir(mode=0o700)
            self._executor = DetachedExecutor(folder)
        self._executor.update_parameters(name=f"{launch.experiment}.{job.stage}")
        submitted = self._executor.submit(StageJob(records.directory, job))
        submitted.paths.submitted_pickle.chmod(0o600)
        digest = sha256(submitted.paths.submitted_pickle)
        return JobHandle(submitted.job_id, ProcessId.of(int(submitted.job_id)), digest)

    def release(self, records: LaunchRecords) -> None:
        """Jobs look at the record themselves."""

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        """Ask the job to stop; with ``force`` kill the stage, and wait for the job to see to it."""
        holders = [each for each in (status.process, status.job_process) if each is not None]
        if force:
            _end(status, holders)
        else:
            any(each.send(signal.SIGTERM) for each in holders)  # the controller passes it on

    def states(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """There is no scheduler to ask."""
        return {}


Implementation = LocalCluster


def _end(status: JobStatus, holders: Sequence[ProcessId]) -> None:
    """Have a job's own process end the stage: it alone can remove the container, and record it.

    A job process that has not begun has nothing to end; one that does not do it in time is killed,
    and its controller does what it left undone.
    """
    job = status.job_process
    if job is None:
        for holder in holders:
            holder.send(signal.SIGKILL)
        return
    for holder in holders:
        if holder != job:
            holder.send(signal.SIGCONT)
    deadline = time.monotonic() + _FORCE_PATIENCE_S
    # One at a time, and again: of two signals at once, Python may act on the other alone.
    for signum in itertools.cycle([_FORCE, signal.SIGCONT]):
        if not job.send(signum):
            return
        if time.monotonic() > deadline:
            job.send(signal.SIGKILL)
        next_s = time.monotonic() + _FORCE_AGAIN_S
        while job.is_alive() and time.monotonic() < next_s:
            time.sleep(_FORCE_POLL_S)


def check_machine(launch: Launch, cluster: str) -> None:
    """Refuse a launch that asks for more than this machine has.

    Raises:
        ConfigError: for more nodes, CPUs, memory or GPUs.
    """
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    for job in launch.jobs:
        asked = job.settings.resources
        gpus = local_gpus.present(job.settings.cluster.gpus) if asked.gpus_per_node else ()
        for key, wanted, there, what in (
            ("nodes", asked.nodes, 1, "is one node"),
            ("cpus_per_task", asked.cpus_per_task or 0, _num_cpus(), f"has {_num_cpus()} CPUs"),
            # Rounded down: what is named can be asked for.
            (
                "mem_gb",
                asked.mem_gb or 0,
                memory_gb,
                f"has {math.floor(memory_gb * 10) / 10:g} GiB of memory",
            ),
            ("gpus_per_node", asked.gpus_per_node, len(gpus), _what_gpus(job, gpus)),
        ):
            if wanted > there:
                raise ConfigError(
                    f"{job.stage} asks for {key}={wanted:g}, and cluster {cluster}, this machine, "
                    f"{what}. Ask for less with stages.{job.stage}.{key}=…, or use "
                    "--cluster slurm."
                )


def _what_gpus(job: Job, gpus: Sequence[str]) -> str:
    if job.settings.cluster.gpus is not None:
        return f"has {len(gpus)} GPUs to give: cluster.gpus=[{','.join(gpus)}]"
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        visible = os.environ["CUDA_VISIBLE_DEVICES"]
        return f"has {len(gpus)} GPUs to give: CUDA_VISIBLE_DEVICES={visible}"
    if not gpus:
        return "has no GPUs that nvidia-smi lists; cluster.gpus=[0,1] would name them"
    return f"has {len(gpus)} GPUs"


def _num_cpus() -> int:
    """Return the number of CPUs that the launcher, and so its jobs, may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _name_in_proc(name: str, folder: Path) -> Path:
    """Return a name of the folder in ``/proc/self``; outside Linux the folder itself."""
    return Path("/proc/self", name) if sys.platform == "linux" else folder
