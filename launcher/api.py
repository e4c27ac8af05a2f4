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

    from launcher.again.continued import Continued
    from launcher.again.request import LaunchRequest
    from launcher.again.verdicts import Verdict
    from launcher.clean.cleaning import Cleaned, Cleaning
    from launcher.display.catalogue import Entry
    from launcher.doctor.finding import Finding
    from launcher.prepare import Prepared
    from launcher.records import LaunchRecords
    from launcher.view import LaunchView

__all__ = [
    "cancel",
    "clean",
    "doctor",
    "explain",
    "find",
    "left_over",
    "list_launches",
    "logs",
    "report",
    "reproduce",
    "rerun",
    "resume",
    "shell",
    "status",
    "wait",
]


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
    from launcher.launches.reach import look

    return look(find(launch, recipe=recipe))


def list_launches(*, recipe: Path | str | None = None) -> list[Entry]:
    """Return the launches of a recipe, the latest last; damaged ones say so."""
    from launcher.display.catalogue import entries

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
    from launcher.launches.cancelling import start_cancelling

    records = find(launch, recipe=recipe)
    start_cancelling(records, stages, force=force).wait()
    return status(records)


def explain(
    launch: LaunchRecords | Path | str | None = None, *, recipe: Path | str | None = None
) -> list[Verdict]:
    """Say of each stage of a launch whether it would be kept or run again, and why.

    Raises:
        LauncherError: what it was asked for cannot be had any more.
    """
    from launcher.again import resume as resuming

    return resuming.explain(find(launch, recipe=recipe))


def resume(
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
    keep: Sequence[str] = (),
    settings: Sequence[str] = (),
    queue: bool = False,
) -> LaunchRecords | None:
    """Submit what failed, never ran, or does not hold any more.

    Args:
        launch: the launch, which has ended.
        recipe: where the latest launch is looked for.
        keep: stages that are kept whatever has changed.
        settings: ``key=value``, over those of that launch.
        queue: have it wait for launches that write to the same folders; else it is refused.

    Returns:
        The new launch; None when there is nothing to do.

    Raises:
        LauncherError: the launch has not ended, or cannot be gone on from.
    """
    from launcher.again.resume import plan_resume

    made = plan_resume(find(launch, recipe=recipe), keep=keep, settings=settings)
    if not made.runs:
        return None
    words = ["resume", str(made.earlier.directory), *settings]
    words += ["--keep", *keep] if keep else []
    return _submit(made.prepared, made.request, words, made.continued, queue=queue)


def rerun(
    stage: str,
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
    downstream: bool = False,
    settings: Sequence[str] = (),
    queue: bool = False,
) -> LaunchRecords:
    """Submit one stage of a launch again, whether it still holds or not; return the new launch.

    Args:
        stage: its name.
        launch: the launch, which has ended.
        recipe: where the latest launch is looked for.
        downstream: submit those after it as well.
        settings: ``key=value``, over those of that launch.
        queue: have it wait for launches that write to the same folders; else it is refused.

    Raises:
        LauncherError: the launch has not ended, or a stage before this one is not done.
    """
    from launcher.again.resume import plan_rerun

    earlier = find(launch, recipe=recipe)
    made = plan_rerun(earlier, stage, downstream=downstream, settings=settings)
    words = ["rerun", stage, str(earlier.directory), *settings]
    words += ["--downstream"] if downstream else []
    return _submit(made.prepared, made.request, words, made.continued, queue=queue)


def reproduce(
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
    anyway: bool = False,
    queue: bool = False,
) -> LaunchRecords:
    """Submit a launch again from its record alone; return the new launch.

    Args:
        launch: the launch, in whatever state it is.
        recipe: where the latest launch is looked for.
        anyway: submit it also when not all would be as it was.
        queue: have it wait for launches that write to the same folders; else it is refused.

    Raises:
        LauncherError: something is not to be had any more, or would not be as it was.
    """
    from launcher.again.reproduce import plan_reproduction

    made = plan_reproduction(find(launch, recipe=recipe))
    if not anyway:
        made.refuse_differences()
    words = ["reproduce", str(made.earlier.directory), *(["--anyway"] if anyway else [])]
    return _submit(made.prepared, made.request, words, made.continued, queue=queue)


def report(
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
    output: Path | str | None = None,
) -> Path:
    """Write a launch as it stands now as one HTML file, and return that.

    Args:
        launch: the launch.
        recipe: where the latest launch is looked for.
        output: the file; ``report.html`` in the launch directory when None.

    Raises:
        RecordError: its record cannot be read, or the file not written.
    """
    from launcher.report import report as write

    return write(find(launch, recipe=recipe), output=None if output is None else Path(output))


def left_over(
    *, recipe: Path | str | None = None, older_than_s: float = 30 * 86400.0, keep: int = 0
) -> Cleaning:
    """Return what could be removed: old launches, and what killed jobs have left.

    Args:
        recipe: whose launches.
        older_than_s: seconds for which nothing has happened to a launch that can go.
        keep: number of launches, the latest ones, that are kept whatever their age.

    Raises:
        LauncherError: there is no such recipe, or the folder of launches cannot be read.
    """
    from launcher.clean.cleaning import plan_cleaning

    return plan_cleaning(
        _text(recipe), working_dir=Path.cwd(), older_than_s=older_than_s, keep=keep
    )


def clean(found: Cleaning) -> Cleaned:
    """Remove what :func:`left_over` found; what cannot be removed is told."""
    from launcher.clean.cleaning import remove

    return remove(found)


def doctor(
    *,
    recipe: Path | str | None = None,
    cluster: str | None = None,
    container: str | None = None,
    job: bool = False,
    verify: bool = False,
) -> list[Finding]:
    """Say whether launches can work from here, and what to do if not.

    Args:
        recipe: whose settings.
        cluster: as ``--cluster``; None for what the settings choose.
        container: as ``--container``; None as above.
        job: have a job of seconds on SLURM say what a node sees.
        verify: read all of each image, to see that it is the one that is pinned.

    Raises:
        LauncherError: there is no such recipe, cluster or container, or a setting is wrong.
    """
    from launcher.doctor.examine import examine_recipe

    return examine_recipe(
        _text(recipe),
        working_dir=Path.cwd(),
        cluster=cluster,
        container=container,
        job=job,
        verify=verify,
    )


def shell(
    stage: str,
    command: Sequence[str],
    launch: LaunchRecords | Path | str | None = None,
    *,
    recipe: Path | str | None = None,
) -> int:
    """Run a command as a stage is run: same image, mounts, environment, GPUs; return its status.

    Args:
        stage: its name.
        command: what to run.
        launch: the launch.
        recipe: where the latest launch is looked for.

    Raises:
        LauncherError: it cannot be started.
    """
    import subprocess

    from launcher.shell import plan_shell

    plan = plan_shell(find(launch, recipe=recipe), stage, command, has_terminal=False)
    if not plan.line:
        return plan.run()
    return subprocess.run(plan.line, env=dict(plan.environment), check=False).returncode


def _submit(
    prepared: Prepared,
    request: LaunchRequest,
    words: Sequence[str],
    continued: Continued,
    *,
    queue: bool,
) -> LaunchRecords:
    from launcher.clusters.base import ForegroundCluster
    from launcher.errors import UsageError
    from launcher.hand_over import submit_prepared
    from launcher.prepare import check

    if isinstance(prepared.cluster, ForegroundCluster):
        raise UsageError(
            f"stages of cluster {prepared.cluster.name} need a terminal: "
            f"python -m launcher {' '.join(words)}"
        )
    check(prepared)
    return submit_prepared(prepared, request, words, continued=continued, queue=queue)


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)
