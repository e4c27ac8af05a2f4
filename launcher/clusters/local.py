"""This machine, with the semantics of SLURM: all jobs submitted at once, each after the one before.

submitit's local executor starts one controller process per job, and knows neither dependencies nor
jobs without a time limit (its default is two minutes). Here each job waits for the recorded end of
its upstream, and the controllers live in sessions of their own, apart from the terminal.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit
from submitit.local.local import LocalJob

from launcher import local_controller
from launcher.clusters.base import JobHandle
from launcher.process import ProcessId
from launcher.ranges import seconds
from launcher.recipe import project_root
from launcher.records import LaunchRecords
from launcher.stage_job import Outcome, StageJob, StopRequest
from launcher.status import DONE, SKIPPED, JobStatus, job_status

if TYPE_CHECKING:
    from launcher.launch import Job, Launch

_NO_LIMIT_S = 10 * 365 * 24 * 3600
# A job takes some 0.6 s of processor time before it waits. Were all to take it at once, the first
# stage of a chain would start seconds later. No stage is over before the next job is ready.
_HEAD_START_S = 0.3


@dataclass
class Settings:
    """``cluster.*`` of the configuration.

    Attributes:
        poll_s: seconds between two looks at the job before.
    """

    name: str = "local"
    poll_s: float = seconds(0.05, least=0.001, most=3600)


@dataclass(frozen=True)
class AfterOk:
    """Gate of a job: open when the upstream stage is done, closed for good when it ended else."""

    upstream: str
    poll_s: float

    def __call__(self, records: LaunchRecords, stop: StopRequest) -> Outcome | None:
        """Wait for the upstream to end, or for a request to stop."""
        while not stop.requested:
            status = job_status(records, self.upstream)
            if status.state == DONE:
                return None
            if status.has_ended:
                return Outcome(SKIPPED, _why_skipped(status))
            time.sleep(self.poll_s)
        return None


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
        return f"{self.python} -u -m submitit.core._submit {folder}"

    def _submit_command(self, command: str) -> LocalJob[Any]:
        # As submitit.local.local.start_controller (1.5.4), but in a session of its own, holding no
        # stream of the launcher's (a pipe would stay open), without a limit, and with the GPUs
        # that are visible here left visible (submitit hides them unless a number is asked for).
        environment = {
            **os.environ,
            "PYTHONPATH": _python_path(),
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

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._executor: DetachedExecutor | None = None

    def submit(self, job: Job, launch: Launch, records: LaunchRecords) -> JobHandle:
        """Start the job's process, which waits for the job before it."""
        if self._executor is None:
            folder = records.directory / "submitit"
            folder.mkdir(mode=0o700)
            self._executor = DetachedExecutor(folder)
        self._executor.update_parameters(name=f"{launch.experiment}.{job.stage}")
        gate = None if job.after is None else AfterOk(job.after, self.settings.poll_s)
        submitted = self._executor.submit(StageJob(records.directory, job, gate))
        # The command in it is the real one, with what may be secret among its arguments.
        submitted.paths.submitted_pickle.chmod(0o600)
        return JobHandle(submitted.job_id, ProcessId.of(int(submitted.job_id)))

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        """Send SIGTERM to the job's controller, which passes it on; with ``force`` SIGKILL."""
        if status.process is not None:
            status.process.send(signal.SIGKILL if force else signal.SIGTERM)


Implementation = LocalCluster


def _why_skipped(upstream: JobStatus) -> str:
    # Down a chain, name the stage that began it rather than the one just before.
    return upstream.reason if upstream.state == SKIPPED else f"{upstream.stage} {_was(upstream)}"


def _was(upstream: JobStatus) -> str:
    return "failed" if upstream.state == "failed" else f"was {upstream.state}"


def _python_path() -> str:
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(project_root()), *([inherited] if inherited else [])])


def _name_in_proc(name: str, folder: Path) -> Path:
    """Return a name of the folder in ``/proc/self``; outside Linux the folder itself."""
    return Path("/proc/self", name) if sys.platform == "linux" else folder
