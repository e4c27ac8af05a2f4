"""From plan and settings to jobs, and from jobs to a running chain."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.clusters.base import Cluster
from launcher.config import LaunchConfig, to_record
from launcher.containers.base import Container
from launcher.errors import ConfigError, LauncherError, SubmissionError
from launcher.masking import mask_arguments, mask_environment
from launcher.plan import StagePlan
from launcher.provenance import git_state, versions
from launcher.recipe import Recipe
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import job_status


@dataclass(frozen=True)
class Job:
    """One stage as a job.

    Attributes:
        stage: its name, which is also the job's.
        stage_command: ``python run.py --stages <stage> …`` as it runs where the recipe lives.
        host_command: what the job process starts: the stage's command inside its container.
        working_dir: the recipe's folder.
        environment: variables that the stage gets on top of the inherited ones.
        output: file for everything that the stage prints.
        after: the stage that has to be done before this one starts.
    """

    stage: str
    stage_command: tuple[str, ...]
    host_command: tuple[str, ...]
    working_dir: Path
    environment: dict[str, str]
    output: Path
    after: str | None

    def to_record(self) -> dict[str, Any]:
        """Return the job as JSON-able values, secrets masked."""
        return {
            "stage": self.stage,
            "stage_command": mask_arguments(self.stage_command),
            "host_command": mask_arguments(self.host_command),
            "working_dir": str(self.working_dir),
            "environment": mask_environment(self.environment),
            "output": str(self.output),
            "log": str(self.output.with_suffix(".log")),
            "metadata": str(self.output.with_suffix(".metadata.json")),
            "after": self.after,
        }


@dataclass(frozen=True)
class Launch:
    """A chain of jobs, ready to be submitted."""

    recipe: Recipe
    plan: StagePlan
    config: LaunchConfig
    jobs: tuple[Job, ...]

    @property
    def experiment(self) -> str:
        """Name of the experiment: the folder of its results, else the recipe."""
        return self.plan.exp_dir.name if self.plan.exp_dir else self.recipe.label


def launches_dir(recipe: Recipe, config: LaunchConfig) -> Path:
    """Return the folder that receives the launch directories.

    Raises:
        ConfigError: its name cannot be resolved, such as ``~nobody``.
    """
    if config.launches_dir is None:
        return recipe.code_root / ".launches"
    try:
        return Path(config.launches_dir).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"launches_dir={config.launches_dir}: {error}") from error


def build_launch(
    recipe: Recipe,
    plan: StagePlan,
    config: LaunchConfig,
    container: Container,
    arguments: Sequence[str],
) -> Launch:
    """Return the jobs of a plan: one for each stage, each after the one before.

    Args:
        recipe: the recipe that was planned.
        plan: its stages.
        config: the launcher's settings.
        container: wraps the command of each stage.
        arguments: of ``run.py``, without ``--stages``.
    """
    jobs: list[Job] = []
    for stage in plan.stages:
        command = [container.interpreter, "run.py", "--stages", stage.name, *arguments]
        jobs.append(
            Job(
                stage=stage.name,
                stage_command=tuple(command),
                host_command=tuple(container.command(command, stop_grace_s=config.stop_grace_s)),
                working_dir=recipe.directory,
                environment={**recipe.environment(), **config.env},
                output=stage.log_dir / f"{stage.name}.out",
                after=jobs[-1].stage if jobs else None,
            )
        )
    return Launch(recipe, plan, config, tuple(jobs))


def submit(launch: Launch, cluster: Cluster, *, command_line: Sequence[str]) -> LaunchRecords:
    """Write the launch record, then submit all jobs in order.

    Raises:
        SubmissionError: a job was refused; those submitted before it are cancelled.
        RecordError: the launch directory cannot be written.
    """
    label = re.sub(r"[^A-Za-z0-9_.]+", "-", launch.recipe.label).strip("-.") or "recipe"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{label}"
    records = LaunchRecords.create(launches_dir(launch.recipe, launch.config), name)
    records.write_launch(
        {
            "id": records.directory.name,
            "created": time.time(),
            "command_line": mask_arguments(command_line),
            "working_dir": str(Path.cwd()),
            "recipe_dir": str(launch.recipe.directory),
            "code_root": str(launch.recipe.code_root),
            "git": git_state(launch.recipe.code_root),
            "versions": versions(),
            "config": to_record(launch.config),
            "plan": launch.plan.to_record(),
            "jobs": [job.to_record() for job in launch.jobs],
        }
    )
    submitted: list[str] = []
    all_stages = [job.stage for job in launch.jobs]  # the rest must not stay pending for ever
    try:
        for job in launch.jobs:
            handle = cluster.submit(job, launch, records)
            records.append(
                LAUNCH,
                "submitted",
                stage=job.stage,
                job_id=handle.job_id,
                process=handle.process.to_record() if handle.process else None,
            )
            submitted.append(job.stage)
    except KeyboardInterrupt:
        cancel(records, all_stages, cluster)
        raise
    except (OSError, RuntimeError, LauncherError) as error:
        cancel(records, all_stages, cluster)
        undone = f" What had been submitted is cancelled: {', '.join(submitted)}."
        raise SubmissionError(
            f"could not submit {job.stage}: {error}.{undone if submitted else ''}"
        ) from error
    return records


def cancel(
    records: LaunchRecords, stages: Sequence[str], cluster: Cluster, *, force: bool = False
) -> list[str]:
    """Ask the jobs of these stages to stop, the last in the chain first; return those asked.

    First on record, then by signal: a job that is only starting, and so cannot be signalled yet,
    looks at the record.
    """
    open_stages = [stage for stage in stages if not job_status(records, stage).has_ended]
    if open_stages:
        records.append(LAUNCH, "cancel_requested", stages=open_stages)
    for stage in reversed(open_stages):
        status = job_status(records, stage)
        if status.job_id is not None:
            cluster.cancel(status, force=force)
    return open_stages
