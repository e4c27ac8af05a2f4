"""What was asked for at a launch, as it is asked for again when that launch is resumed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import RecordError
from launcher.masking import MASK
from launcher.records import LaunchRecords

if TYPE_CHECKING:
    from launcher.launch import Launch

# A name is one launch's own; cluster and container are asked for by what was chosen.
_NOT_AGAIN = ("launch_name=", "cluster=", "container=")


@dataclass(frozen=True)
class LaunchRequest:
    """The words of a command line, sorted. Secrets among them are refused before it comes to this.

    Attributes:
        recipe: folder of the recipe.
        cluster: name of the cluster.
        container: name of the runtime.
        stages: in canonical order.
        settings: ``key=value``.
        passed_on: arguments of ``run.py``.
        allow_unpinned: whether an image may be named by a tag.
        working_dir: from which relative paths count.
    """

    recipe: str
    cluster: str
    container: str
    stages: tuple[str, ...]
    settings: tuple[str, ...]
    passed_on: tuple[str, ...]
    allow_unpinned: bool
    working_dir: Path

    @classmethod
    def of(
        cls,
        launch: Launch,
        settings: Sequence[str],
        passed_on: Sequence[str],
        *,
        working_dir: Path,
    ) -> LaunchRequest:
        """Return the request that a launch was made from."""
        return cls(
            recipe=str(launch.recipe.directory),
            cluster=launch.config.cluster.name,
            container=launch.config.container.name,
            stages=tuple(stage.name for stage in launch.plan.stages),
            settings=tuple(settings),
            passed_on=tuple(passed_on),
            allow_unpinned=launch.config.allow_unpinned,
            working_dir=working_dir,
        )

    @classmethod
    def recorded(cls, records: LaunchRecords) -> LaunchRequest:
        """Return the request of a launch, with cluster, container and stages as they were chosen.

        Raises:
            RecordError: the launch's record does not tell.
        """
        record = records.whole_launch()
        try:
            config = record["config"]
            settings, passed_on = _words(record)
            return cls(
                recipe=record["recipe_dir"],
                cluster=config["cluster"]["name"],
                container=config["container"]["name"],
                stages=tuple(stage["name"] for stage in record["plan"]["stages"]),
                settings=tuple(each for each in settings if not each.startswith(_NOT_AGAIN)),
                passed_on=tuple(passed_on),
                allow_unpinned=bool(config["allow_unpinned"]),
                working_dir=Path(record["working_dir"]),
            )
        except (KeyError, ValueError) as error:
            said = f"there is no {error}" if isinstance(error, KeyError) else error
            raise RecordError(
                f"{records.directory / 'launch.json'} does not tell what was asked for: {said}. "
                "Launch again with the command itself."
            ) from error

    @property
    def options(self) -> Namespace:
        """The launcher's options, as its own command line has them."""
        return Namespace(
            recipe=self.recipe,
            cluster=self.cluster,
            container=self.container,
            stages=list(self.stages),
            allow_unpinned=self.allow_unpinned,
            dry_run=False,
            follow=False,
        )

    def to_record(self) -> dict[str, Any]:
        """Return what else the record of a launch does not tell, JSON-able."""
        return {"settings": list(self.settings), "passed_on": list(self.passed_on)}


def _words(record: dict[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    """Return settings and arguments of ``run.py``; an older launch has its command line alone."""
    if "request" in record:
        request = record["request"]
        return request["settings"], request["passed_on"]
    from launcher.cli import split_arguments

    _, settings, passed_on = split_arguments(record["command_line"][3:])
    if any(MASK in word for word in (*settings, *passed_on)):
        raise ValueError("its command line held a secret, which is not on record")
    return settings, passed_on
