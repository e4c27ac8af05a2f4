"""From what was typed to a launch that is ready: container, plan, images, code and mounts."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import registry
from launcher.clusters.base import Cluster
from launcher.config import LaunchConfig, load_config
from launcher.containers.base import Container, ImageFormat
from launcher.errors import ConfigError, LauncherError, UsageError, did_you_mean
from launcher.launch import SNAPSHOT_DIR, Launch, build_launch, own_mounts
from launcher.launches.dirs import free_directory
from launcher.masking import mask_arguments
from launcher.mounts import StageMounts, stage_mounts
from launcher.plan import StagePlan, probe_plan
from launcher.processes import terminal
from launcher.recipe import (
    Recipe,
    check_framework,
    default_python,
    find_recipe,
    recipe_arguments,
)
from launcher.settings.stage import stage_config
from launcher.snapshot import SnapshotPlan, plan_snapshot
from launcher.snapshot.record import commits
from launcher.snapshot.recorded import RecordedCode
from launcher.stage_images import (
    changed_image_inputs,
    missing_image,
    named_images,
    resolve_pin_of,
    resolve_pins,
)

# Listed by default, whether somebody has them or not.
USUAL_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")


@dataclass(frozen=True)
class Prepared:
    """A launch that could be submitted.

    Attributes:
        folders: to be made before stages are started, since they are mounted.
        notices: what the person at the terminal should know.
    """

    launch: Launch
    cluster: Cluster
    container: Container
    snapshot: SnapshotPlan | RecordedCode
    folders: tuple[Path, ...]
    notices: tuple[str, ...]


def prepare(
    options: Namespace, settings: Sequence[str], passed_on: Sequence[str], *, working_dir: Path
) -> Prepared:
    """Work out a launch. Nothing is written or submitted.

    Args:
        options: of the launcher.
        settings: ``key=value``.
        passed_on: arguments for ``run.py``.
        working_dir: where the command was typed.

    Raises:
        LauncherError: anything that was asked for cannot be had.
    """
    recipe = find_recipe(options.recipe, working_dir=working_dir)
    check_framework(recipe)
    refuse_secrets(passed_on)
    settings = [*settings, *(["allow_unpinned=true"] if options.allow_unpinned else [])]
    choices = {"cluster": options.cluster, "container": options.container}
    config, container, notices = choose(choices, settings, recipe)
    cluster = registry.load("clusters", config.cluster.name).Implementation(config.cluster)
    arguments = recipe_arguments(passed_on, recipe, working_dir=working_dir)
    stages = ["--stages", *options.stages] if options.stages else []
    plan = plan_stages(recipe, config, container, [*stages, *arguments])
    notices += unknown_stages(config, plan, settings)
    notices += absent_secrets(config, os.environ)
    if options.dry_run and (problem := container.problem()):
        notices.append(f"{config.container.name} does not work here: {problem}")
    pins = resolve_pins(config, container, plan)
    directory = free_directory(recipe, config)
    in_container = container.image_format != ImageFormat.NONE
    roots = [root for root in recipe.code_roots if in_container or root == recipe.code_root]
    writable = [recipe.directory, *output_dirs(plan), directory, *map(Path, config.mounts)]
    above = [recipe.directory, *recipe.directory.parents]
    writable += [path for path in plan.paths if path.is_dir() and path not in above]
    mode = config.snapshot if in_container else "none"
    snapshot = plan_snapshot(mode, roots, writable, directory / SNAPSHOT_DIR)
    notices += snapshot.notices
    seen = StageMounts(())
    if in_container:
        texts = [*arguments, *map(str, plan.paths), *environment_values(config, plan)]
        seen = stage_mounts(
            code_roots=[recipe.code_root],
            working_dir=recipe.directory,
            read_only_roots=[root for root in recipe.code_roots if root != recipe.code_root],
            launch=own_mounts(directory),
            outputs=output_dirs(plan),
            candidates=texts,
            mounts=config.mounts,
            mounts_read_only=config.mounts_read_only,
            snapshot=snapshot.mounts,
        )
        notices += seen.notices
    launch = build_launch(
        recipe,
        plan,
        config,
        container,
        arguments,
        directory=directory,
        pins=pins,
        mounts=seen.mounts,
        commits=commits(snapshot) if in_container else {},
        terminal=config.cluster.name == "debug" and terminal.is_terminal(),
    )
    notices += changed_image_inputs(config, pins)
    notices += [
        f"image {pin.asked} is not pinned: it may be another tomorrow; every record says so."
        for pin in pins.values()
        if pin.unpinned
    ]
    told = tuple(dict.fromkeys(notices))
    return Prepared(launch, cluster, container, snapshot, seen.folders, told)


def check(prepared: Prepared) -> None:
    """See that everything a launch needs is there, before anything is queued.

    Raises:
        LauncherError: something is not.
    """
    launch, container = prepared.launch, prepared.container
    from launcher.containers._features import asked_features, check_features
    from launcher.dry_run import nominal_run

    for job in launch.jobs:
        asked = asked_features(nominal_run(job, container, os.environ))
        kept = {each: what for each, what in asked.items() if each not in prepared.cluster.keeps}
        check_features(container, kept)
        check_output(job.output)
    prepared.cluster.check(launch)
    if container.image_format == ImageFormat.NONE:
        return
    problem = container.problem()
    if problem is not None:
        if prepared.cluster.falls_back_to_host:
            raise LauncherError(problem)
        return  # a login node need not run containers; the nodes verify for themselves
    from launcher.images.verify import prepare_image

    pins = {job.pin.asked: (job.pin, job.image_cache) for job in launch.jobs if job.pin is not None}
    for pin, cache in pins.values():
        prepare_image(pin, container, cache, say=_say)


def choose(
    choices: Mapping[str, str | None], settings: Sequence[str], recipe: Recipe
) -> tuple[LaunchConfig, Container, list[str]]:
    """Return the settings, the runtime, and what is to be said of the choice.

    ``container=auto`` is the first runtime that works here and has the image; failing that, the
    host itself where the cluster allows it.

    Raises:
        LauncherError: no runtime works here, and the cluster does not run stages on the host.
    """
    config = load_config(choices, settings, recipe_dir=recipe.directory)
    typed = [each for each in settings if re.match(r"(stages\.\w+\.)?image=(?!auto$)", each)]
    if config.container.name == "none" and typed:
        raise ConfigError(f"stages run on the host with --container none: leave out {typed[0]}")
    if config.container.name != "auto":
        return config, _runtime(config), []
    cluster = registry.load("clusters", config.cluster.name).Implementation
    others = [setting for setting in settings if not setting.startswith("container=")]

    def with_container(name: str) -> LaunchConfig:
        chosen = {**choices, "container": name}
        return load_config(chosen, others, recipe_dir=recipe.directory)

    missing = missing_image(config) if cluster.falls_back_to_host else None
    reasons = [] if missing is None else [missing]
    for name in cluster.preferred_containers if missing is None else ():
        candidate = with_container(name)
        container = _runtime(candidate)
        problem = container.problem()
        if problem is None:
            return candidate, container, []
        reasons.append(f"{name}: {problem}")
    told = "\n".join(f"  {reason}" for reason in reasons)
    if not cluster.falls_back_to_host:
        raise LauncherError(
            f"no container runtime works here, and on {config.cluster.name} stages run in one:\n"
            f"{told}\nWhere only the nodes have one, name it: --container apptainer. "
            "--container none runs stages on the nodes themselves."
        )
    if images := named_images(config):
        raise LauncherError(
            f"stages are to run in {', '.join(images)}, and cannot:\n{told}\n"
            "--container none runs them on this machine itself."
        )
    host = with_container("none")
    notice = (
        f"stages run on this machine itself, in no container:\n{told}\n"
        "  Add --container none and it is not said again."
    )
    return host, _runtime(host), [notice]


def plan_stages(
    recipe: Recipe, config: LaunchConfig, container: Container, arguments: Sequence[str]
) -> StagePlan:
    """Ask the recipe for its stages: on the host where that can import it, else in the container.

    Raises:
        LauncherError: as :func:`launcher.plan.probe_plan`.
    """
    from launcher.plan import RecipeLacksModule

    in_container = container.image_format != ImageFormat.NONE
    if config.probe != "container" or not in_container:
        python = default_python() if in_container else container.interpreter
        try:
            return probe_plan(recipe, python, arguments, timeout_s=config.probe_timeout_s)
        except RecipeLacksModule:
            if config.probe == "host" or not in_container:
                raise
    from launcher.container_probe import container_starter

    pin = resolve_pin_of(config, config.image if config.image != "auto" else "cpu")
    start = container_starter(recipe, config, container, pin)
    return probe_plan(
        recipe,
        container.interpreter,
        arguments,
        timeout_s=config.probe_timeout_s,
        start=start,
    )


def unknown_stages(config: LaunchConfig, plan: StagePlan, typed: Sequence[str]) -> list[str]:
    """Return a warning for settings of stages that are not in this launch, if they may be slips.

    A file has settings for all stages of a recipe, whichever are launched: there, only a name that
    is nearly one of this launch's is one.

    Raises:
        ConfigError: such a name was typed.
    """
    planned = [stage.name for stage in plan.stages]
    named = [setting.split(".")[1] for setting in typed if setting.startswith("stages.")]
    others = [
        str(name)
        for name in config.stages
        if name not in planned and (name in named or did_you_mean(str(name), planned))
    ]
    for name in others:
        if name in named and (hint := did_you_mean(name, planned)):
            raise ConfigError(
                f"stages.{name}: there is no stage '{name}' in this launch.{hint} "
                f"It has {', '.join(planned)}."
            )
    if not others:
        return []
    return [
        f"settings for stages that are not in this launch: {', '.join(others)}. "
        f"It has {', '.join(planned)}."
    ]


def absent_secrets(config: LaunchConfig, environ: Mapping[str, str]) -> list[str]:
    """Return a warning for secrets that somebody listed, and that are not there to be passed on."""
    absent = [name for name in config.secrets if name not in (*USUAL_SECRETS, *environ)]
    if not absent:
        return []
    return [f"secrets that are not set here, so stages will lack them: {', '.join(absent)}"]


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Refuse arguments of ``run.py`` that look like secrets.

    Raises:
        UsageError: one does.
    """
    masked = mask_arguments(arguments)
    for index, (given, shown) in enumerate(zip(arguments, masked, strict=True)):
        if given != shown:
            flag = given.partition("=")[0] if given.startswith("-") else arguments[index - 1]
            raise UsageError(
                f"{flag} looks like a secret, and a command line is seen by everybody on the "
                "machine and kept in records. Put it into the environment under a name that the "
                "recipe reads, and list the name: secrets='[HF_TOKEN]'."
            )


def environment_values(config: LaunchConfig, plan: StagePlan) -> list[str]:
    """Return the values of the variables that the settings give to any stage."""
    stages = [stage_config(config, stage.name) for stage in plan.stages]
    return [value for stage in stages for value in stage.env.values()]


def output_dirs(plan: StagePlan) -> list[Path]:
    """Return the folders that stages are known to write to."""
    found = [stage.log_dir for stage in plan.stages]
    return list(dict.fromkeys([*([plan.exp_dir] if plan.exp_dir else []), *found]))


def check_output(output: Path) -> None:
    """See that a stage's output can be written.

    Raises:
        ConfigError: it cannot.
    """
    folder = next(each for each in output.parents if os.path.lexists(each))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "is not a folder" if not folder.is_dir() else "cannot be written by you"
        raise ConfigError(f"logs are to go to {output.parent}, and {folder} {what}.")


def _say(line: str) -> None:
    print(f"launcher: {line}", file=sys.stderr)


def _runtime(config: LaunchConfig) -> Container:
    implementation: Container = registry.load("containers", config.container.name).Implementation(
        config.container
    )
    return implementation
