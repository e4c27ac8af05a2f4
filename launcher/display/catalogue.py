"""All launches of a recipe at a glance; a cluster is asked for those alone that have not ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import DamagedLaunch, RecordError
from launcher.launches import launches_of
from launcher.launches.reach import look
from launcher.printable import harmless, printable
from launcher.records import LaunchRecords
from launcher.view import LaunchView

DAMAGED = "damaged"


@dataclass(frozen=True)
class Entry:
    """A launch in a list.

    Attributes:
        directory: the launch directory.
        view: the launch; None where its record cannot be read.
        problem: why it cannot be read.
    """

    directory: Path
    view: LaunchView | None
    problem: str = ""

    @property
    def name(self) -> str:
        """Name of the launch directory."""
        return printable(self.directory.name)

    @property
    def created(self) -> float | None:
        """When it was made, in seconds since the epoch."""
        return self.view.record.get("created") if self.view else None

    @property
    def cluster(self) -> str:
        """Name of the cluster that it was handed to."""
        return self.view.cluster if self.view else "?"

    @property
    def state(self) -> str:
        """Its state in a word."""
        return self.view.state if self.view else DAMAGED

    @property
    def in_words(self) -> str:
        """Its state with the stage that it is at."""
        return self.view.in_words if self.view else f"{DAMAGED}: {self.problem}"

    @property
    def note(self) -> str:
        """The launch that it goes on from, or why it cannot be read."""
        return (self.view.goes_on_from or "") if self.view else self.problem

    @property
    def unasked(self) -> str:
        """What could not be asked of its cluster."""
        return self.view.unasked if self.view else ""

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON-able values, without its stages."""
        return {
            "launch": self.name,
            "directory": str(self.directory),
            "created": self.created,
            "cluster": self.cluster,
            "experiment": self.view.experiment if self.view else None,
            "resumes": self.view.record.get("resumes") if self.view else None,
            "reproduces": self.view.record.get("reproduces") if self.view else None,
            "elapsed_s": self.view.elapsed_s if self.view else None,
            "state": self.state,
            "in_words": self.in_words,
            "stages": [each.status.stage for each in self.view.stages] if self.view else [],
        }


def entries(recipe: str | None, *, working_dir: Path) -> list[Entry]:
    """Return the launches of a recipe, the latest last.

    Args:
        recipe: its folder; None for the working directory's, else for all recipes whose launches
            are kept with those of the default one.
        working_dir: where the command was typed.

    Raises:
        LauncherError: there is no such recipe, or its settings cannot be read.
    """
    found = launches_of(recipe, working_dir=working_dir, with_damaged=True)
    return [_entry(records) for records in found]


def _entry(records: LaunchRecords) -> Entry:
    try:
        return Entry(records.directory, look(records))
    except DamagedLaunch as error:
        return Entry(records.directory, None, harmless(error.damage))
    except RecordError as error:
        return Entry(records.directory, None, harmless(str(error)))
