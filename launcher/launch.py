"""From plan and settings to the jobs of a launch. Nothing is written or submitted here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.config import LaunchConfig
from launcher.containers.base import INSIDE, Container, ContainerRun, ImageFormat, Mount
from launcher.images.cache import default_cache_dir
from launcher.images.pin import ImagePin
from launcher.masking import mask_arguments, mask_environment
from launcher.plan import StagePlan
from launcher.recipe import Recipe
from launcher.settings.stage import StageConfig, stage_config

# Of the launch directory: what containers see as /launcher, their home, and the code.
INSIDE_DIR, HOME_DIR, SNAPSHOT_DIR = "inside", "home", "snapshot"
# By which containers are found, and told whose they are. A shell's names the process it is for.
LAUNCH_LABEL, STAGE_LABEL = "launcher.launch", "launcher.stage"
DIRECTORY_LABEL, SHELL_LABEL = "launcher.directory", "launcher.shell"
# Of a stage in a container: the commits of the code roots, as JSON, by path.
GIT_COMMITS = "LAUNCHER_GIT_COMMITS"


@dataclass(frozen=True)
class Job:
    """One stage as a job.

    Attributes:
        stage: its name, which is also the job's.
        after: the stage that has to be done before this one starts.
        run: its container, as far as it is known before there is a node.
        container: ``Settings`` of the runtime.
        settings: of this stage: resources, cluster, image.
        pin: the image that is asked for; None without a container.
        image_cache: folder of converted images.
        pass_env: patterns of the variables of the job's environment that containers see.
        output: file for everything that the stage prints.
        code: the files of the code at submission, to be compared; None where containers see the
            snapshot itself.
        arguments: of ``run.py``, without ``--stages``.
        behind: the launch directories of those that have to have ended before it starts.
    """

    stage: str
    after: str | None
    run: ContainerRun
    container: Any
    settings: StageConfig
    pin: ImagePin | None
    image_cache: Path
    pass_env: tuple[str, ...]
    output: Path
    code: Path | None = None
    arguments: tuple[str, ...] = ()
    behind: tuple[Path, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return the job as JSON-able values, secrets masked."""
        return {
            "stage": self.stage,
            "after": self.after,
            "stage_command": mask_arguments(self.run.command),
            "working_dir": str(self.run.working_dir),
            "environment": mask_environment(self.run.environment),
            "secrets": list(self.run.secrets),
            "resources": asdict(self.settings.resources),
            "cluster": asdict(self.settings.cluster),
            "container": asdict(self.container),
            "image": image_record(self.pin),
            "mounts": [mount_record(mount) for mount in self.run.mounts],
            "output": str(self.output),
            "log": str(self.output.with_suffix(".log")),
            "metadata": str(self.output.with_suffix(".metadata.json")),
        }


@dataclass(frozen=True)
class Launch:
    """A chain of jobs, ready to be submitted.

    Attributes:
        directory: the launch directory that it is to have.
    """

    recipe: Recipe
    plan: StagePlan
    config: LaunchConfig
    jobs: tuple[Job, ...]
    directory: Path

    @property
    def experiment(self) -> str:
        """Name of the experiment: the folder of its results, else the recipe."""
        return self.plan.exp_dir.name if self.plan.exp_dir else self.recipe.label


def build_launch(
    recipe: Recipe,
    plan: StagePlan,
    config: LaunchConfig,
    container: Container,
    arguments: Sequence[str],
    *,
    directory: Path,
    pins: Mapping[str, ImagePin],
    mounts: Sequence[Mount] = (),
    commits: Mapping[str, str] | None = None,
    terminal: bool = False,
) -> Launch:
    """Return the jobs of a plan: one for each stage, each after the one before.

    Args:
        recipe: the recipe that was planned.
        plan: its stages.
        config: the launcher's settings.
        container: the runtime that runs each stage.
        arguments: of ``run.py``, without ``--stages``.
        directory: the launch directory that it is to have.
        pins: the image of each stage.
        mounts: what containers see of the host.
        commits: where code roots stand, by path, for images without git.
        terminal: whether stages get this terminal.
    """
    jobs: list[Job] = []
    in_container = container.image_format != ImageFormat.NONE
    for stage in plan.stages:
        settings = stage_config(config, stage.name)
        resources = settings.resources
        command = [container.interpreter, "run.py", "--stages", stage.name, *arguments]
        run = ContainerRun(
            command=tuple(command),
            working_dir=recipe.directory,
            name=container_name(directory, stage.name),
            labels={
                LAUNCH_LABEL: directory.name,
                STAGE_LABEL: stage.name,
                DIRECTORY_LABEL: str(directory),
            },
            mounts=tuple(mounts),
            environment={
                **recipe.environment(inherit=not in_container, framework=plan.framework),
                **(home_environment(directory / HOME_DIR) if in_container else {}),
                **thread_environment(resources.cpus_per_task),
                **settings.env,
                "LAUNCHER_LAUNCH_ID": directory.name,
                **told_environment(container, pins.get(stage.name), commits or {}),
            },
            secrets=tuple(config.secrets),
            uid=os.getuid(),
            gids=tuple(dict.fromkeys([os.getgid(), *sorted(os.getgroups())])),
            cpus=resources.cpus_per_task,
            mem_gb=resources.mem_gb,
            shm_gb=resources.mem_gb or ContainerRun.shm_gb,
            num_nodes=resources.nodes,
            stop_grace_s=config.stop_grace_s,
            guard=directory / INSIDE_DIR / "guard.py",
            terminal=terminal,
            used=directory / HOME_DIR / f".used-{stage.name}",
        )
        jobs.append(
            Job(
                stage=stage.name,
                after=jobs[-1].stage if jobs else None,
                run=run,
                container=config.container,
                settings=settings,
                pin=pins.get(stage.name),
                image_cache=image_cache(config),
                pass_env=tuple(config.pass_env),
                output=stage.log_dir / f"{stage.name}.out",
                code=None if in_container else directory / SNAPSHOT_DIR,
                arguments=tuple(arguments),
            )
        )
    return Launch(recipe, plan, config, tuple(jobs), directory)


def own_mounts(directory: Path) -> tuple[Mount, ...]:
    """Return what containers see of a launch directory."""
    return (
        Mount(directory / INSIDE_DIR, INSIDE, read_only=True),
        Mount(directory / HOME_DIR, directory / HOME_DIR),
    )


def image_of(config: LaunchConfig, stage: str) -> str:
    """Return what the image of a stage is called: ``gpu`` or ``cpu`` where that is left open."""
    settings = stage_config(config, stage)
    if settings.image != "auto":
        return settings.image
    return "gpu" if settings.num_gpus else "cpu"


def where_it_runs(launch: Launch) -> str:
    """Say in a line where the stages of a launch run: ``on slurm, in apptainer: cpu@sha256:…``."""
    containers = dict.fromkeys(job.container.name for job in launch.jobs)
    images = {job.pin.asked: job.pin for job in launch.jobs if job.pin is not None}
    shown = []
    for pin in images.values():
        name, at, digest = pin.asked.partition("@sha256:")
        named = pin.name if pin.name != pin.asked else name
        shown.append(f"{named}{at}{digest[:12]}…" if at else pin.asked)
    what = ", ".join(containers)
    inside = "in no container" if what == "none" else f"in {what}: {', '.join(shown)}"
    return f"on {launch.config.cluster.name}, {inside}"


def image_cache(config: LaunchConfig) -> Path:
    """Return the folder of converted images."""
    if config.image_cache is not None:
        return Path(config.image_cache).expanduser().absolute()
    return default_cache_dir()


def container_name(directory: Path, stage: str) -> str:
    """Return a name that no other launch's container has, and that says whose it is."""
    import hashlib
    import re

    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]
    label = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{directory.name}.{stage}").strip("-.")
    return f"launcher-{digest}-{label}"[:200]


def home_environment(home: Path) -> dict[str, str]:
    """Return what a user id without an entry in the image's ``/etc/passwd`` needs."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return {
        "HOME": str(home),
        "USER": user,
        "LOGNAME": user,
        "XDG_CACHE_HOME": str(home / ".cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / ".cache" / "torchinductor"),
    }


def told_environment(
    container: Container, pin: ImagePin | None, commits: Mapping[str, str]
) -> dict[str, str]:
    """Return what a stage cannot see by itself: what it runs in, and the commit of its code."""
    told = {"LAUNCHER_CONTAINER": container.name}
    if pin is not None:
        told["LAUNCHER_IMAGE"] = pin.asked
    if commits and container.image_format != ImageFormat.NONE:
        told[GIT_COMMITS] = json.dumps(commits)
    return told


def thread_environment(cpus: int | None) -> dict[str, str]:
    """Have numeric libraries use as many threads as CPUs were asked for, and not all there are."""
    return {} if cpus is None else {"OMP_NUM_THREADS": str(cpus)}


def image_record(pin: ImagePin | None) -> dict[str, Any] | None:
    """Return an image as JSON-able values."""
    return None if pin is None else {**asdict(pin), "inputs": dict(pin.inputs), "asked": pin.asked}


def mount_record(mount: Mount) -> dict[str, Any]:
    """Return a mount as JSON-able values."""
    return {
        "source": str(mount.source),
        "target": str(mount.target),
        "read_only": mount.read_only,
    }
