"""What ``--dry-run`` prints: what a cluster would be given, and every command, exact and readable.

Secrets are shown by name alone. What only the node knows stands in capitals: GPU-1, NODE-1, PORT.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from launcher.clusters.base import Allocation
from launcher.job.container_run import container_run
from launcher.job.stage_files import OUTPUT_INODE
from launcher.masking import mask_arguments, mask_environment

if TYPE_CHECKING:
    from launcher.clusters.base import Cluster
    from launcher.containers.base import Container, ContainerRun
    from launcher.images.pin import VerifiedImage
    from launcher.launch import Job, Launch

_WIDTH = 88
_LABEL = 11


def describe(
    launch: Launch,
    cluster: Cluster,
    container: Container,
    *,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Return what a launch would do. Commands can be typed into a shell; secrets are masked."""
    scripts = cluster.preview(launch, launch.directory)
    lines = [
        f"recipe   {launch.recipe.directory}",
        f"system   {launch.plan.system}",
        f"cluster  {launch.config.cluster.name}, container {launch.config.container.name}",
        f"launch   {launch.directory}",
    ]
    for job in launch.jobs:
        run = nominal_run(job, container, os.environ if environ is None else environ)
        lines += ["", f"{job.stage}" + (f", after {job.after}" if job.after else "")]
        if job.pin is not None:
            unpinned = ", not pinned" if job.pin.unpinned else ""
            lines += [f"  image    {job.pin.asked}{unpinned}"]
        if job.stage in scripts:
            lines += [f"  {'sbatch':{_LABEL - 2}}{scripts[job.stage]}".rstrip()]
        in_container = job.pin is not None
        additions = [] if in_container else _additions(run)
        secrets = [name for name in run.secrets if name != OUTPUT_INODE]
        if secrets:
            lines += [f"  secrets  {' '.join(secrets)}"]
        lines += [
            _labelled("cd", _wrapped([[str(run.working_dir)]])),
            *([_labelled("env", _wrapped(additions))] if additions else []),
            _labelled("command", _command(container.command(run), run)),
            f"  log      {job.output.with_suffix('.log')}",
            f"  output   {job.output}",
        ]
    return "\n".join(lines)


def nominal_run(job: Job, container: Container, environ: Mapping[str, str]) -> ContainerRun:
    """Return a stage's container as it would be run on a node that has what is asked for."""
    gpus = tuple(f"GPU-{number + 1}" for number in range(job.settings.num_gpus))
    num_nodes = job.settings.resources.nodes
    allocation = Allocation(
        node="NODE",
        gpus=gpus,
        num_nodes=num_nodes,
        master="NODE-1",
        record={"master_port": "PORT"},
    )
    return container_run(
        job,
        allocation,
        _nominal_image(job, container),
        environ=environ,
        image_format=container.image_format,
        has_rdma=False,
    )


def _nominal_image(job: Job, container: Container) -> VerifiedImage | None:
    if job.pin is None:
        return None
    from launcher.images.pin import VerifiedImage
    from launcher.images.verify import image_argument

    argument = image_argument(job.pin, container.image_format, job.image_cache)
    return VerifiedImage(argument=argument, asked=job.pin.asked, verified="")


def _additions(run: ContainerRun) -> list[list[str]]:
    return [[f"{name}={value}"] for name, value in mask_environment(run.environment).items()]


def _command(command: Sequence[str], run: ContainerRun) -> list[str]:
    """Return the lines of what the job starts; the stage's own command begins a line."""
    inner = list(run.command)
    wrapper = list(command[: len(command) - len(inner)])
    if not wrapper or list(command[len(wrapper) :]) != inner:
        return _wrapped(_groups(mask_arguments(command)))
    return [*_wrapped(_groups(mask_arguments(wrapper))), *_wrapped(_groups(mask_arguments(inner)))]


def _groups(words: Sequence[str]) -> list[list[str]]:
    """Keep a flag and its values together."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups or not groups[-1][0].startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _wrapped(groups: Iterable[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    for text in map(shlex.join, groups):
        if lines and _LABEL + len(lines[-1]) + 1 + len(text) + 2 <= _WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _labelled(label: str, lines: Sequence[str]) -> str:
    """Join lines with what tells a shell that a command goes on."""
    return f"  {label:{_LABEL - 2}}" + f" \\\n{' ' * _LABEL}".join(lines)
