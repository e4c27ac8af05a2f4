"""The job of a stage as its launch recorded it: same image, mounts, environment and resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from launcher import registry
from launcher.again.continued import CARRIED_FROM
from launcher.config import from_record
from launcher.containers.base import Mount
from launcher.errors import ConfigError, RecordError, UsageError
from launcher.images.pin import ImagePin
from launcher.launch import GIT_COMMITS, Job, build_launch
from launcher.masking import mask_environment
from launcher.plan import StagePlan
from launcher.recipe import Recipe
from launcher.recorded.files import parse_json
from launcher.recorded.kinds import mapping_of, raw_text
from launcher.recorded.settings import settings
from launcher.records import LaunchRecords

_COMMITS = mapping_of(raw_text)


def ran_by(records: LaunchRecords, stage: str) -> LaunchRecords:
    """Return the launch that ran a stage: an earlier one, where this one took it over.

    Raises:
        RecordError: the record cannot be read, or that launch is not there any more.
    """
    origin = _job_record(records, stage).get(CARRIED_FROM)
    if origin is None:
        return records
    earlier = LaunchRecords(Path(str(origin)))
    if not (earlier.directory / "launch.json").is_file():
        raise RecordError(f"{stage} was run by launch {origin}, which is not there any more")
    return earlier


def recorded_job(records: LaunchRecords, stage: str) -> Job:
    """Return the job of a stage, as it was submitted.

    Raises:
        RecordError: the launch's record does not tell all of it.
    """
    record, of_stage = records.whole_launch(), _job_record(records, stage)
    try:
        config = from_record(record["config"])
        runtime = registry.load("containers", config.container.name)
        image = of_stage["image"]
        launch = build_launch(
            Recipe(Path(record["recipe_dir"]), Path(record["code_root"])),
            StagePlan.from_record(record["plan"]),
            config,
            runtime.Implementation(config.container),
            (),
            directory=records.directory,
            pins={stage: recorded_pin(image)} if image else {},
            mounts=[_mount(each) for each in of_stage["mounts"]],
            commits=recorded_commits(of_stage),
        )
    except (KeyError, ValueError, ConfigError, UsageError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else error
        raise RecordError(
            f"{records.directory / 'launch.json'} does not tell how {stage} was run: {said}"
        ) from error
    for job in launch.jobs:
        if job.stage == stage:
            environment = _environment(job.run.environment, of_stage["environment"])
            return replace(job, run=replace(job.run, environment=environment))
    raise RecordError(f"{records.directory / 'launch.json'} has no plan of {stage}")


def recorded_commits(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the commits that a stage was told; none where its launch told none.

    Raises:
        ValueError: they are not whole.
    """
    told: dict[str, str] = _COMMITS(parse_json(job["environment"].get(GIT_COMMITS, "{}").encode()))
    return told


def _environment(built: Mapping[str, str], recorded: Mapping[str, str]) -> dict[str, str]:
    """Return a stage's variables as they were recorded, those without their values as they are now.

    Its launch's copy of the launcher, which may be what runs this, does not know which folders were
    searched at submission.
    """
    masked = mask_environment(built)
    told = {name: value for name, value in recorded.items() if masked.get(name) != value}
    return {**built, **told}


def _job_record(records: LaunchRecords, stage: str) -> Mapping[str, Any]:
    for job in records.read_launch()["jobs"]:
        if job["stage"] == stage:
            found: Mapping[str, Any] = job
            return found
    raise RecordError(f"launch {records.directory.name} has no stage {stage}")


def recorded_pin(recorded: Mapping[str, Any]) -> ImagePin:
    """Return an image as a job's record has it.

    Raises:
        Unfit: it is not whole.
    """
    names = {each.name for each in fields(ImagePin)}
    known = {name: value for name, value in recorded.items() if name in names}
    return settings(ImagePin, known, "image")


def _mount(recorded: Mapping[str, Any]) -> Mount:
    source, target = Path(recorded["source"]), Path(recorded["target"])
    return Mount(source, target, read_only=bool(recorded["read_only"]))
