"""``python -m launcher cancel``: stop what runs, and see that what waits never does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords

# After the time that a stage has to stop: what its guard and its job take to record it.
_SLACK_S = 10.0
_POLL_S = 0.1
_ASK_EVERY_S = 1.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument("launch", nargs="?", metavar="LAUNCH")
    parser.add_argument("--recipe", metavar="DIR")
    parser.add_argument("--force", action="store_true")


def run(options: Namespace) -> int:
    """Cancel the launch; return the exit status."""
    from launcher.launches import find_open_launch
    from launcher.recipe import current_dir

    records = find_open_launch(options.launch, options.recipe, working_dir=current_dir())
    return cancel_launch(records, force=options.force)


def cancel_launch(records: LaunchRecords, *, force: bool) -> int:
    """Cancel what has not ended, wait for it, and print what has become of the launch.

    Returns:
        Exit status: 0 when every stage has ended, else 1.
    """
    from rich.console import Console

    from launcher.clusters.base import NamedCluster, SweepingCluster
    from launcher.launches import cluster_and_grace, command_on
    from launcher.render import launch_rows, short_path
    from launcher.status import chain_status
    from launcher.submission import cancel
    from launcher.summary import show

    cluster, stop_grace_s = cluster_and_grace(records)
    if isinstance(cluster, NamedCluster) and not all(
        status.has_ended for status in chain_status(records)
    ):
        cluster.check_reach()
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
    show(launch_rows(records, cluster), Console(highlight=False))
    if lasting:
        again = command_on("cancel", records)
        print(f"\nStill there: {', '.join(lasting)}. To kill it: {again} --force")
    return 1 if lasting else 0


def _open_stages(records: LaunchRecords, cluster: Cluster) -> list[str]:
    """Return the stages of which no end is on record, unless the scheduler has ended their jobs."""
    from launcher.status import PENDING, RUNNING, job_status

    jobs = [job_status(records, job["stage"]) for job in records.read_launch()["jobs"]]
    left = [status for status in jobs if not status.has_ended]
    told = cluster.states([status.job_id for status in left if status.job_id is not None])
    gone = {job_id for job_id, each in told.items() if each.state not in (PENDING, RUNNING)}
    return [status.stage for status in left if status.job_id not in gone]
