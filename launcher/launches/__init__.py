"""Launches after submission, as any later process finds them: by path, name, or the latest.

A launch of which nothing is said is the latest of the recipe's. Where a command takes stages as
well, its words are sorted by what they are: a launch, or stages of it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from launcher import registry
from launcher.clusters.base import Cluster, NamedCluster
from launcher.config import LaunchConfig, load_config
from launcher.display.render import short_path
from launcher.errors import (
    ConfigError,
    LauncherError,
    RecordError,
    UsageError,
    did_you_mean,
    separated,
)
from launcher.launches.dirs import launches_dir
from launcher.recipe import find_recipe
from launcher.recorded.settings import settings
from launcher.recorded.unfit import Unfit
from launcher.records import LaunchRecords
from launcher.status import chain_status

_MOST_NAMED = 8


def launches_folder(recipe: str | None, *, working_dir: Path) -> Path:
    """Return the folder of a recipe's launch directories, whether it is there or not.

    Args:
        recipe: its folder; None for the working directory's, or the project's default.
        working_dir: where the command was typed.

    Raises:
        LauncherError: there is no such recipe, or its settings cannot be read.
    """
    found = find_recipe(recipe, working_dir=working_dir)
    return launches_dir(found, load_config({}, [], recipe_dir=found.directory))


def launches_in(
    folder: Path, recipe_dir: Path | None = None, *, with_damaged: bool = False
) -> list[LaunchRecords]:
    """Return the launches of a folder, the latest last; those of one recipe, where it is given.

    With ``with_damaged`` there are also those of which the recipe cannot be told.
    """
    told = [(_created_and_recipe(path), path.parent) for path in folder.glob("*/launch.json")]
    return [
        LaunchRecords(directory)
        for (_, recipe), directory in sorted(told, key=lambda each: (each[0][0], each[1]))
        if recipe_dir is None or recipe == str(recipe_dir) or (with_damaged and recipe is None)
    ]


def _created_and_recipe(path: Path) -> tuple[float, str | None]:
    """Return when a launch was made and its recipe; of a damaged record, when it was written."""
    try:
        record = LaunchRecords(path.parent).read_launch()
        return float(record["created"]), str(record["recipe_dir"])
    except (RecordError, KeyError):
        with suppress(OSError):
            return path.stat().st_mtime, None
        return 0.0, None


def find_launch(asked: str | None, recipe: str | None, *, working_dir: Path) -> LaunchRecords:
    """Return the launch of that path, name or part of a name, else the recipe's latest one.

    Raises:
        UsageError: there is none, or that part is in several names.
    """
    given = _launch_at(asked, working_dir)
    if given is not None:
        return given
    folder = launches_folder(recipe, working_dir=working_dir)
    if asked is not None and _may_be_name(asked) and (folder / asked / "launch.json").is_file():
        return LaunchRecords(folder / asked)
    launches = launches_of(recipe, working_dir=working_dir, with_damaged=asked is not None)
    if not launches:
        raise UsageError(
            f"there are no launches {'of that recipe ' if recipe else ''}in {folder}. Give the "
            "folder that was printed at submission, or --recipe DIR."
        )
    if asked is None:
        return launches[-1]
    if (found := launch_like(asked, launches)) is not None:
        return found
    names = [records.directory.name for records in launches]
    raise UsageError(
        f"there is no launch '{asked}' in {folder}.{did_you_mean(asked, names, most=3)} "
        f"The latest is {names[-1]}."
    )


def launch_like(part: str, launches: Sequence[LaunchRecords]) -> LaunchRecords | None:
    """Return the launch in whose name a part stands; None where it stands in none.

    Args:
        part: of the name.
        launches: the latest last.

    Raises:
        UsageError: it stands in several.
    """
    found = [each for each in launches if part and part in each.directory.name]
    if len(found) < 2:
        return found[0] if found else None
    names = [each.directory.name for each in reversed(found)]
    more = [f"and {len(names) - _MOST_NAMED} older"] if len(names) > _MOST_NAMED else []
    told = "".join(f"\n  {name}" for name in [*names[:_MOST_NAMED], *more])
    raise UsageError(f"several launches have '{part}' in their name. Type more of it:{told}")


def launches_of(
    recipe: str | None, *, working_dir: Path, with_damaged: bool = False
) -> list[LaunchRecords]:
    """Return the launches of the recipe that is named or that the working directory is.

    Where it is neither, those of all recipes that keep their launches with the default one. The
    latest is last.

    Raises:
        LauncherError: as :func:`launches_folder`.
    """
    folder = launches_folder(recipe, working_dir=working_dir)
    is_chosen = recipe is not None or (working_dir / "run.py").is_file()
    chosen = find_recipe(recipe, working_dir=working_dir).directory if is_chosen else None
    return launches_in(folder, chosen, with_damaged=with_damaged)


def find_open_launch(asked: str | None, recipe: str | None, *, working_dir: Path) -> LaunchRecords:
    """Return the launch that is named, else the only one that has not ended, else the latest.

    Raises:
        UsageError: there is none, or several have not ended.
    """
    if asked is not None:
        return find_launch(asked, recipe, working_dir=working_dir)
    still_open = [
        records for records in launches_of(recipe, working_dir=working_dir) if _is_open(records)
    ]
    if len(still_open) > 1:
        names = "".join(f"\n  {short_path(records.directory)}" for records in still_open)
        raise UsageError(f"several launches have not ended. Name one of them:{names}")
    return still_open[0] if still_open else find_launch(None, recipe, working_dir=working_dir)


def _is_open(records: LaunchRecords) -> bool:
    with suppress(LauncherError):
        if all(status.has_ended for status in chain_status(records)):
            return False
        cluster, _ = cluster_and_grace(records)
        return not all(status.has_ended for status in chain_status(records, cluster))
    return False


def find_stages(
    words: Sequence[str],
    recipe: str | None,
    *,
    working_dir: Path,
    default: Callable[..., LaunchRecords] = find_launch,
) -> tuple[LaunchRecords, list[str]]:
    """Sort the words of a command into a launch and its stages.

    Args:
        words: of the command.
        recipe: as for :func:`find_launch`.
        working_dir: where the command was typed.
        default: finds the launch when none is named: the latest, or the one that has not ended.

    Returns:
        The launch; and those of its stages that were named, in the order of the chain.

    Raises:
        UsageError: a word is neither, or two launches were named.
    """
    folder: Path | None = None
    launches: list[LaunchRecords] = []
    others: list[str] = []
    for word in words:
        records = _launch_at(word, working_dir)
        if records is None and _may_be_name(word):
            folder = folder or launches_folder(recipe, working_dir=working_dir)
            if (folder / word / "launch.json").is_file():
                records = LaunchRecords(folder / word)
        if records is None:
            others.append(word)
        else:
            launches.append(records)
    if not launches and others:
        launches, others = _named_by_part(others, recipe, working_dir)
    if len(launches) > 1:
        raise UsageError(f"two launches at once: {', '.join(words)}. Name one.")
    records = launches[0] if launches else default(None, recipe, working_dir=working_dir)
    stages = [str(job["stage"]) for job in records.read_launch()["jobs"]]
    for word in others:
        if word not in stages:
            if "," in word:
                raise UsageError(f"'{word}' is no stage: {separated([word])}")
            raise UsageError(
                f"there is neither a launch nor a stage '{word}'.{did_you_mean(word, stages)} "
                f"Launch {records.directory.name} has the stages {', '.join(stages)}."
            )
    return records, [stage for stage in stages if stage in others]


def _named_by_part(
    words: Sequence[str], recipe: str | None, working_dir: Path
) -> tuple[list[LaunchRecords], list[str]]:
    """Sort words into launches, named by a part of their name, and stages; a stage is a stage."""
    known = launches_of(recipe, working_dir=working_dir, with_damaged=True)
    stages: set[str] = set()
    for records in reversed(known):
        with suppress(RecordError):
            stages = {str(job["stage"]) for job in records.read_launch()["jobs"]}
            break
    found = {word: launch_like(word, known) for word in words if word not in stages}
    launches = [records for records in found.values() if records is not None]
    return launches, [word for word in words if found.get(word) is None]


def _launch_at(asked: str | None, working_dir: Path) -> LaunchRecords | None:
    try:
        if asked is not None and (working_dir / asked / "launch.json").is_file():
            return LaunchRecords((working_dir / asked).resolve())
    except OSError as error:
        raise UsageError(f"cannot look into {asked}: {error.strerror}") from error
    except ValueError:  # a zero byte
        pass
    return None


def _may_be_name(word: str) -> bool:
    return "/" not in word and word not in ("", ".", "..")


def command_on(name: str, records: LaunchRecords, *more: str) -> str:
    """Return the command that works on this launch, as it is typed in this working directory."""
    directory = short_path(records.directory)
    python = short_path(Path(sys.executable))
    return shlex.join([python, "-m", "launcher", name, directory, *more])


def cluster_and_grace(records: LaunchRecords) -> tuple[Cluster, float]:
    """Return what a launch was submitted to, and the seconds that a stage of it has to stop.

    Raises:
        RecordError: its record does not tell.
    """
    config = records.read_launch().get("config", {})
    try:
        recorded = config["cluster"]
        module = registry.load("clusters", recorded["name"])
        cluster: Cluster = module.Implementation(
            settings(module.Settings, recorded, "config.cluster")
        )
    except (KeyError, Unfit, ConfigError, UsageError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else error
        raise RecordError(
            f"{records.directory / 'launch.json'} is damaged: its settings are not whole: {said}"
        ) from error
    stop_grace_s = config.get("stop_grace_s", LaunchConfig.stop_grace_s)
    if isinstance(cluster, NamedCluster):
        cluster.belongs_to(records)
    return cluster, stop_grace_s
