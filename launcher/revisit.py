"""A launch after it was submitted, from any later process: ``status`` and ``cancel``."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launcher import registry
from launcher.clusters.base import Cluster, SweepingCluster
from launcher.config import load_config
from launcher.errors import RecordError, UsageError, did_you_mean
from launcher.recipe import find_recipe
from launcher.records import LaunchRecords
from launcher.render import Row, launch_rows, short_path
from launcher.status import PENDING, RUNNING, chain_status, job_status
from launcher.submission import cancel, launches_dir

# After the time that a stage has to stop: what its guard and its job take to record it.
_SLACK_S = 10.0
_POLL_S = 0.1
_ASK_EVERY_S = 1.0


def show_status(records: LaunchRecords) -> int:
    """Print what has become of a launch; return the exit status."""
    cluster: Cluster | None = None
    with suppress(RecordError):  # damaged settings: the records still tell most of it
        cluster, _ = _cluster_and_grace(records)
    rows = launch_rows(records, cluster)
    print(f"launch {short_path(records.directory)}")
    _show(rows)
    return 0


def cancel_launch(records: LaunchRecords, *, force: bool) -> int:
    """Cancel what has not ended, wait for it, and print what has become of the launch.

    Returns:
        Exit status: 0 when every stage has ended, else 1.
    """
    cluster, stop_grace_s = _cluster_and_grace(records)
    asked = cancel(records, _open_stages(records, cluster), cluster, force=force)
    if isinstance(cluster, SweepingCluster):
        cluster.sweep(records)
    shown = short_path(records.directory)
    if not asked:
        print(f"launch {shown}: every stage had ended already, nothing to cancel")
    else:
        print(f"launch {shown}: {'killing' if force else 'cancelling'} {', '.join(asked)}")
    deadline = time.monotonic() + stop_grace_s + _SLACK_S
    asked_s = time.monotonic()
    while lasting := [each.stage for each in chain_status(records) if not each.has_ended]:
        if time.monotonic() > deadline:
            break
        if time.monotonic() > asked_s + _ASK_EVERY_S:
            asked_s = time.monotonic()
            lasting = [each.stage for each in chain_status(records, cluster) if not each.has_ended]
            if not lasting:
                break
        time.sleep(_POLL_S)
    _show(launch_rows(records, cluster))
    if lasting:
        again = revisit_command("cancel", records)
        print(f"\nStill there: {', '.join(lasting)}. To kill it: {again} --force")
    return 1 if lasting else 0


def _open_stages(records: LaunchRecords, cluster: Cluster) -> list[str]:
    """Return the stages of which no end is on record, unless the scheduler has ended their jobs."""
    jobs = [job_status(records, job["stage"]) for job in records.read_launch()["jobs"]]
    left = [status for status in jobs if not status.has_ended]
    told = cluster.states([status.job_id for status in left if status.job_id is not None])
    gone = {job_id for job_id, each in told.items() if each.state not in (PENDING, RUNNING)}
    return [status.stage for status in left if status.job_id not in gone]


def find_launch(asked: str | None, recipe: str | None, *, working_dir: Path) -> LaunchRecords:
    """Return the launch of that path or name, else the latest one of the recipe's.

    Raises:
        UsageError: there is none.
    """
    try:
        if asked is not None and (working_dir / asked / "launch.json").is_file():
            return LaunchRecords((working_dir / asked).resolve())
    except OSError as error:
        raise UsageError(f"cannot look into {asked}: {error.strerror}") from error
    found = find_recipe(recipe, working_dir=working_dir)
    folder = launches_dir(found, load_config({}, [], recipe_dir=found.directory))
    names = sorted(path.parent.name for path in folder.glob("*/launch.json"))
    if not names:
        raise UsageError(
            f"there are no launches in {folder}. Give the folder that was printed at submission, "
            "or --recipe DIR."
        )
    if asked is not None and asked not in names:
        raise UsageError(
            f"there is no launch '{asked}' in {folder}.{did_you_mean(asked, names)} "
            f"The latest is {names[-1]}."
        )
    return LaunchRecords(folder / (asked or names[-1]))


def revisit_command(name: str, records: LaunchRecords) -> str:
    """Return the command that works on this launch, as it is typed in this working directory."""
    directory = short_path(records.directory)
    return shlex.join([short_path(Path(sys.executable)), "-m", "launcher", name, directory])


def _cluster_and_grace(records: LaunchRecords) -> tuple[Cluster, float]:
    """Return what a launch was submitted to, and the seconds that a stage of it has to stop."""
    record = records.read_launch()
    try:
        config = record["config"]
        settings = config["cluster"]
        module = registry.load("clusters", settings["name"])
        return module.Implementation(module.Settings(**settings)), float(config["stop_grace_s"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{records.directory / 'launch.json'} is damaged: its settings are not whole"
        ) from error


def _show(rows: Sequence[Row]) -> None:
    from rich.console import Console

    from launcher.summary import show

    show(rows, Console(highlight=False))
