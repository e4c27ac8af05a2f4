"""Where a shell of a stage is started: here, in the stage's running job, or in one of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.again.recorded_job import ran_by, recorded_job
from launcher.clusters.base import NamedCluster
from launcher.errors import LauncherError, UsageError
from launcher.job.copied_code import CODE_DIR
from launcher.launch import Job
from launcher.launches import cluster_and_grace
from launcher.processes.terminal import is_terminal
from launcher.recipe import default_python, project_root
from launcher.records import LaunchRecords
from launcher.slurm.calls import submission_environment
from launcher.slurm.script import sbatch_options, srun_arguments
from launcher.status import RUNNING, chain_status

_MODULE = "launcher.job.shell_job"
# Of a job's options those that srun does not have, or that are not for a shell.
_OF_SBATCH_ALONE = (
    *("job-name", "ntasks-per-node", "nodes", "open-mode", "requeue", "no-requeue", "signal"),
)


@dataclass(frozen=True)
class ShellPlan:
    """A shell that could be started.

    Attributes:
        records: of the launch that runs, or ran, the stage.
        stage: its name.
        command: what runs in it; a shell when empty.
        line: the command line that starts it on SLURM; empty where it is started here.
        environment: of that line.
        is_inside: whether it goes into the running job of the stage.
    """

    records: LaunchRecords
    stage: str
    command: tuple[str, ...]
    line: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    is_inside: bool = False

    def run(self) -> int:
        """Start it, wait for its end, and return its exit status.

        Raises:
            LauncherError: it cannot be started.
        """
        if not self.line:
            from launcher.job.shell_job import run_shell

            return run_shell(self.records, self.stage, self.command)
        if shutil.which(self.line[0]) is None:
            raise LauncherError(f"there is no {self.line[0]} here: log in to the cluster")
        sys.stdout.flush()
        # In place of this process: keys and signals are srun's, and nothing is in between.
        os.execvpe(self.line[0], list(self.line), dict(self.environment))


def plan_shell(
    launch: LaunchRecords,
    stage: str,
    command: Sequence[str] = (),
    *,
    has_terminal: bool | None = None,
) -> ShellPlan:
    """Decide where a shell of a stage is started. Nothing is started.

    Args:
        launch: the launch.
        stage: its name.
        command: what to run; a shell when empty.
        has_terminal: whether a person sits here; looked up when None.

    Raises:
        UsageError: there is neither a terminal nor a command.
        LauncherError: the record does not tell all of it, or its cluster does not answer.
    """
    has_terminal = is_terminal() if has_terminal is None else has_terminal
    if not command and not has_terminal:
        raise UsageError(
            "a shell needs a terminal, and there is none here. Give a command: "
            f"python -m launcher shell {stage} -- nvidia-smi"
        )
    records = ran_by(launch, stage)
    job = recorded_job(records, stage)
    if job.settings.cluster.name != "slurm":
        return ShellPlan(records, stage, tuple(command))
    cluster, _ = cluster_and_grace(records)
    if isinstance(cluster, NamedCluster):
        cluster.check_reach()
    (status,) = (each for each in chain_status(records, cluster) if each.stage == stage)
    running_id = status.job_id if status.state == RUNNING else None
    line = srun_line(records, job, command, running_id=running_id, has_terminal=has_terminal)
    environment = submission_environment(os.environ)
    code = _code(records)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([code, *([inherited] if inherited else [])])
    return ShellPlan(
        records,
        stage,
        tuple(command),
        tuple(line),
        tuple(environment.items()),
        is_inside=running_id is not None,
    )


def srun_line(
    records: LaunchRecords,
    job: Job,
    command: Sequence[str],
    *,
    running_id: str | None,
    has_terminal: bool,
) -> list[str]:
    """Return the command line of srun. Pure.

    Args:
        records: of the launch.
        job: of the stage.
        command: what to run; a shell when empty.
        running_id: of the stage's job, where that runs: the shell goes into it.
        has_terminal: whether a person sits here.
    """
    settings = job.settings.cluster
    line = ["srun", "--quiet", *(["--pty"] if has_terminal else [])]
    if running_id is not None:
        # --overlap, from Slurm 20.11 on, shares with the stage what its step was given.
        line += [f"--jobid={running_id}", "--overlap"]
    else:
        options = sbatch_options(job, "shell")
        for name, value in options.items():
            if name not in _OF_SBATCH_ALONE:
                line.append(f"--{name}" if value is True else f"--{name}={value}")
        line.append(f"--job-name=shell.{job.stage}")
        line += [each for each in srun_arguments(job) if not each.startswith("--cpus-per-task")]
    line += ["--nodes=1", "--ntasks=1", f"--chdir={records.directory}"]
    own = [] if running_id is not None else ["--own"]
    python = settings.python or default_python()
    node = [python, "-m", _MODULE, str(records.directory), job.stage, *own, *command]
    if settings.setup:
        node = ["/bin/bash", "-c", "\n".join([*settings.setup, 'exec "$@"']), "bash", *node]
    return [*line, *node]


def _code(records: LaunchRecords) -> str:
    """Return the launcher's code as the launch has it; this one's where that knows no shells."""
    copied = records.directory / CODE_DIR
    knows = copied.joinpath(*_MODULE.split(".")).with_suffix(".py").is_file()
    return str(copied if knows and os.pathsep not in str(copied) else project_root())
