"""The commands on launches from Python: what each prints, as values.

Importing it costs next to nothing.

::

    from launcher import api

    launch = api.find("20261126-101500-fsdd-asr")
    if api.wait(launch).state == "failed":
        print("\\n".join(api.status(launch).stages[0].failure_lines))

Everywhere, ``launch`` is a launch directory, its name, what :func:`find` returned, or None for the
latest of the recipe; ``recipe`` is the folder of a recipe, or None for the working directory's,
else the project's default. Mistakes are raised as :class:`launcher.errors.LauncherError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.catalogue import Entry
    from launcher.records import LaunchRecords
    from launcher.view import LaunchView

__all__ = ["cancel", "find", "list_launches", "logs", "status", "wait"]


def find(
    launch: LaunchRecords | Path | str | None = None, *, recipe: Path | str | None = None
) -> LaunchRecords:
    """Return the records of a launch.

    Raises:
        UsageError: there is no such launch.
    """
    from launcher.launches import find_launch
    from launcher.records import LaunchRecords

    if isinstance(launch, LaunchRecords):
        return launch
    asked = None if launch is None else str(launch)
    return find_launch(asked, _text(recipe), working_dir=Path.cwd())


def status(
    launch: LaunchRecords | Path | str | None = None, *, recipe: Path | str | None = None
) -> LaunchView:
    """Return what has become of a launch; its cluster is asked for what is not on record.

    Raises:
        RecordError: its record cannot be read.
    """
    from launcher.reach import look

    return look(find(launch, recipe=recipe))


def list_launches(*, recipe: Path | str | None = None) -> list[Entry]:
    """Return the launches of a recipe, the latest last; damaged ones say so."""
    from launcher.catalogue import entries

    return entries(_text(recipe), working_dir=Path.cwd())


def logs(
    stage: str,
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
) -> Path | None:
    """Return the file with all that a stage's latest run has printed; None before it began."""
    for each in status(launch, recipe=recipe).stages:
        if each.status.stage == stage:
            return each.row.output if each.status.started is not None else None
    from launcher.errors import UsageError

    raise UsageError(f"the launch has no stage '{stage}'")


def wait(
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
    timeout_s: float | None = None,
) -> LaunchView:
    """Wait until every stage of a launch has ended; return it as it then is.

    Args:
        launch: the launch.
        recipe: where the latest launch is looked for.
        timeout_s: seconds after which it is returned as it is; None for no limit.
    """
    from launcher.commands.wait import wait_for

    return wait_for(find(launch, recipe=recipe), timeout_s=timeout_s)


def cancel(
    launch: LaunchRecords | Path | str | None = None,
    stages: Sequence[str] = (),
    *,
    recipe: Path | str | None = None,
    force: bool = False,
) -> LaunchView:
    """Cancel stages and all that come after them, of all stages when none is named; wait for it.

    Args:
        launch: the launch.
        stages: their names.
        recipe: where the latest launch is looked for.
        force: kill them without asking.

    Raises:
        LauncherError: the cluster of the launch cannot be reached from here.
    """
    from launcher.cancelling import start_cancelling

    records = find(launch, recipe=recipe)
    start_cancelling(records, stages, force=force).wait()
    return status(records)


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)
