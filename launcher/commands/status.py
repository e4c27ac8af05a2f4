"""``python -m launcher status``: what has become of a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from launcher.records import LaunchRecords


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument("launch", nargs="?", metavar="LAUNCH")
    parser.add_argument("--recipe", metavar="DIR")
    parser.add_argument("--explain", action="store_true")


def run(options: Namespace) -> int:
    """Print what has become of the launch; return the exit status."""
    from launcher.launches import find_launch
    from launcher.recipe import current_dir

    records = find_launch(options.launch, options.recipe, working_dir=current_dir())
    status = show_status(records)
    if options.explain:
        from launcher.commands.resume import changed_lines

        print("", *changed_lines(records), sep="\n")
    return status


def show_status(records: LaunchRecords) -> int:
    """Print what has become of a launch; return the exit status."""
    from contextlib import suppress

    from rich.console import Console

    from launcher.clusters.base import Cluster, NamedCluster
    from launcher.errors import LauncherError, RecordError
    from launcher.launches import cluster_and_grace
    from launcher.render import launch_rows, short_path
    from launcher.summary import show

    cluster: Cluster | None = None
    with suppress(RecordError):  # damaged settings: the records still tell most of it
        cluster, _ = cluster_and_grace(records)
    rows = launch_rows(records, cluster)
    print(f"launch {short_path(records.directory)}")
    if isinstance(cluster, NamedCluster) and not all(row.status.has_ended for row in rows):
        try:
            cluster.check_reach()
        except LauncherError as error:
            print(f"{error} What follows is what is on record.")
    show(rows, Console(highlight=False))
    return 0
