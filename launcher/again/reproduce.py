"""A launch again, from its record alone: its code, images, settings, arguments and mounts.

Neither the tree nor the settings of today have a say in it; what cannot be had as it was is named.
What stages leave goes where it went, and to a new launch directory.
"""

from __future__ import annotations

import filecmp
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher import registry
from launcher.again.continued import CARRIED_FROM, REPRODUCES, Continued
from launcher.again.fingerprint import Basis, image_digest
from launcher.again.recorded_job import recorded_commits, recorded_pin
from launcher.again.request import LaunchRequest
from launcher.clusters.base import Cluster
from launcher.config import from_record
from launcher.containers.base import Container, ImageFormat, Mount
from launcher.display.render import short_path
from launcher.errors import ConfigError, ImageError, LauncherError, RecordError, UsageError
from launcher.job.copied_code import CODE_DIR
from launcher.launch import SNAPSHOT_DIR, Launch, build_launch, image_of
from launcher.launches.dirs import free_directory
from launcher.masking import MASK
from launcher.plan import StagePlan
from launcher.prepare import Prepared, absent_secrets, output_dirs
from launcher.recipe import Recipe, project_root
from launcher.records import LaunchRecords
from launcher.snapshot.provenance import versions
from launcher.snapshot.recorded import RecordedCode
from launcher.stage_images import resolve_pin_of

_MOST_NAMED = 8
_BEFORE_ARGUMENTS = 4  # python run.py --stages NAME


@dataclass(frozen=True)
class Reproduction:
    """A launch made from the record of an earlier one, ready to be submitted.

    Attributes:
        earlier: the records of that launch.
        request: what was asked for.
        prepared: what to submit.
        differences: what would not be as it was.
    """

    earlier: LaunchRecords
    request: LaunchRequest
    prepared: Prepared
    differences: tuple[str, ...]

    @property
    def continued(self) -> Continued:
        """The link to the earlier launch."""
        return Continued(self.earlier, REPRODUCES)

    def refuse_differences(self) -> None:
        """Refuse what would be no reproduction.

        Raises:
            LauncherError: it names all that would not be as it was.
        """
        if self.differences:
            told = "".join(f"\n  {difference}" for difference in self.differences)
            raise LauncherError(
                f"the launch would not be as it was:{told}\nMend that, or add --anyway."
            )


def plan_reproduction(earlier: LaunchRecords) -> Reproduction:
    """Put a launch together from the record of an earlier one. Nothing is written or submitted.

    Args:
        earlier: the launch, in whatever state it is.

    Raises:
        RecordError: its record is not whole, or its snapshot is gone or altered.
        LauncherError: something that it used is not to be had any more.
    """
    record = earlier.whole_launch()
    try:
        return _reproduction(earlier, record)
    except (KeyError, ValueError, ConfigError, UsageError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else error
        raise RecordError(
            f"{earlier.directory / 'launch.json'} does not tell all that a launch is made of: "
            f"{said}"
        ) from error


def _reproduction(earlier: LaunchRecords, record: Mapping[str, Any]) -> Reproduction:
    recipe = Recipe(Path(record["recipe_dir"]), Path(record["code_root"]))
    plan = replace(StagePlan.from_record(record["plan"]), resolved=Basis.recorded(earlier).configs)
    config = from_record(record["config"], launches_dir=str(earlier.directory.parent))
    runtime = registry.load("containers", config.container.name)
    container: Container = runtime.Implementation(config.container)
    cluster: Cluster = registry.load("clusters", config.cluster.name).Implementation(config.cluster)
    jobs = [job for job in record["jobs"] if CARRIED_FROM not in job]
    if not jobs:
        raise RecordError(f"launch {earlier.directory.name} ran no stage of its own")
    directory = free_directory(recipe, config)
    arguments = [str(each) for each in jobs[0]["stage_command"][_BEFORE_ARGUMENTS:]]
    if any(MASK in each for each in arguments):
        raise RecordError("its arguments held a secret, which is not on record")
    code = RecordedCode(
        record["snapshot"],
        earlier.directory / SNAPSHOT_DIR,
        directory / SNAPSHOT_DIR,
        record.get("git"),
    )
    code.verify()
    pins = {job["stage"]: recorded_pin(job["image"]) for job in record["jobs"] if job["image"]}
    mounts = list(_mounts(jobs[0]["mounts"], earlier.directory, directory))
    outputs = output_dirs(plan)
    _refuse_what_is_gone(mounts, plan, outputs, directory, code)
    launch = build_launch(
        recipe,
        plan,
        config,
        container,
        arguments,
        directory=directory,
        pins=pins,
        mounts=mounts,
        commits=recorded_commits(jobs[0]),
    )
    differences = [
        *_code_differences(code, record),
        *_config_differences(plan, code, float(record["created"])),
        *_kept_otherwise(record),
        *(_host_differences(record) if container.image_format == ImageFormat.NONE else ()),
    ]
    notices = [
        *_launcher_differences(earlier, record),
        *_lock_differences(launch),
        *_left_outputs(plan),
        *absent_secrets(config, os.environ),
    ]
    mounted = [each for each in outputs if any(each == mount.source for mount in mounts)]
    prepared = Prepared(launch, cluster, container, code, tuple(mounted), tuple(notices))
    return Reproduction(earlier, LaunchRequest.recorded(earlier), prepared, tuple(differences))


def _mounts(recorded: Sequence[Mapping[str, Any]], was: Path, now: Path) -> Iterator[Mount]:
    """Yield the mounts, those of the launch directory as those of the new one."""

    def moved(path: str) -> Path:
        return now / Path(path).relative_to(was) if Path(path).is_relative_to(was) else Path(path)

    for mount in recorded:
        yield Mount(
            moved(mount["source"]), moved(mount["target"]), read_only=bool(mount["read_only"])
        )


def _refuse_what_is_gone(
    mounts: Sequence[Mount],
    plan: StagePlan,
    outputs: Sequence[Path],
    directory: Path,
    code: RecordedCode,
) -> None:
    """Refuse a launch that lacks what it has read.

    Raises:
        LauncherError: it names all that is gone.
    """
    configs = {path for stage in plan.stages for path in stage.configs.values()}
    needed = [plan.recipe_dir, *(configs - (code.files if code.is_copied else set()))]
    needed += [mount.source for mount in mounts if directory not in mount.source.parents]
    gone = [each for each in dict.fromkeys(needed) if each not in outputs and not each.exists()]
    if gone:
        raise LauncherError(
            f"the launch cannot be reproduced: {', '.join(map(str, gone[:_MOST_NAMED]))} "
            f"{'is' if len(gone) == 1 else 'are'} gone, which it had."
        )


def _code_differences(code: RecordedCode, record: Mapping[str, Any]) -> Iterator[str]:
    changed = code.changed()
    if changed:
        yield (
            f"code: stages run from the tree, which is another{_where_it_was(code, record)}: "
            f"{', '.join(changed[:_MOST_NAMED])}"
        )
    for root in record["snapshot"]["roots"]:
        if code.is_copied and root.get("mode") == "none":
            yield f"code: {root['path']} is not in the snapshot, and stages see it as it is now"


def _where_it_was(code: RecordedCode, record: Mapping[str, Any]) -> str:
    commit = (record.get("git") or {}).get("commit")
    diff = f" and the changes in {short_path(code.diff)}" if code.diff else ""
    return f" (it was commit {commit[:12]}{diff})" if commit else ""


def _config_differences(plan: StagePlan, code: RecordedCode, created_s: float) -> Iterator[str]:
    """Name the configs that are in no snapshot, and that were written after the launch."""
    files = code.files
    configs = {path for stage in plan.stages for path in stage.configs.values()}
    for path in sorted(configs - files):
        with suppress(OSError):
            if path.stat().st_mtime > created_s:
                yield f"config: {path} is in no snapshot, and was written after the launch"


def _kept_otherwise(record: Mapping[str, Any]) -> Iterator[str]:
    """Name the stages that the launch kept from an earlier one, though what they ran differs."""
    own = [job["fingerprint"] for job in record["jobs"] if CARRIED_FROM not in job]
    for job in record["jobs"]:
        if CARRIED_FROM in job and (job.get("fingerprint") or {}).get("code") != own[0]["code"]:
            yield (
                f"code: {job['stage']} was run by launch {Path(job[CARRIED_FROM]).name}, with "
                "other code than this one's"
            )


def _host_differences(record: Mapping[str, Any]) -> Iterator[str]:
    """Name what stages on the host get of it; that of an image is in the image."""
    was, now = record["versions"], versions()
    for name in ("python", "executable", "platform"):
        if was.get(name) != now.get(name):
            yield f"host: {name} {was.get(name)} → {now.get(name)}"


def _launcher_differences(earlier: LaunchRecords, record: Mapping[str, Any]) -> Iterator[str]:
    was, now = record["versions"], versions()
    for name in ("submitit", "hydra-core", "omegaconf"):
        if was.get(name) != now.get(name):
            yield f"the launcher has another {name}: {was.get(name)} → {now.get(name)}"
    recorded = earlier.directory / CODE_DIR / "launcher"
    if not recorded.is_dir() or not _is_same(recorded, project_root() / "launcher"):
        yield "the launcher itself is another version than the one that made the launch"


def _is_same(one: Path, other: Path) -> bool:
    listed = [{each.relative_to(top) for each in top.rglob("*.py")} for top in (one, other)]
    return listed[0] == listed[1] and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in listed[0]
    )


def _lock_differences(launch: Launch) -> Iterator[str]:
    """Say which names stand for another image today; the recorded one is used."""
    for job in launch.jobs:
        if job.pin is None:
            continue
        name = image_of(launch.config, job.stage)
        with suppress(ImageError):
            now = resolve_pin_of(launch.config, name)
            if image_digest(now) != image_digest(job.pin):
                yield (
                    f"image '{name}' is {image_digest(now)} by now; the recorded one is used, "
                    f"{image_digest(job.pin)}"
                )


def _left_outputs(plan: StagePlan) -> Iterator[str]:
    left = [each for each in output_dirs(plan) if each.is_dir() and any(each.iterdir())]
    tops = [each for each in left if not any(each.is_relative_to(o) for o in left if o != each)]
    if tops:
        moves = "; ".join(
            f"mv {shlex.quote(path)} {shlex.quote(f'{path}.before')}"
            for path in map(short_path, tops)
        )
        yield (
            "there are outputs of earlier runs, and a stage that finds its work done keeps it. To "
            f"have everything made anew, move them aside first: {moves}"
        )
