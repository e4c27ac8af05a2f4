"""``python -m launcher attach``: what ``--follow`` shows, of a launch that is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "attach mini_an4"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_launch, add_recipe

    add_launch(parser)
    add_recipe(parser)


def run(options: Namespace) -> int:
    """Show the launch until it has ended, or Ctrl-C; return the exit status."""
    from launcher.display.follow import follow
    from launcher.display.render import short_path
    from launcher.launches import cluster_and_grace, command_on, find_launch
    from launcher.processes.interrupts import INTERRUPTED, Interrupts
    from launcher.recipe import current_dir

    records = find_launch(options.launch, options.recipe, working_dir=current_dir())
    cluster, _ = cluster_and_grace(records)
    print(f"launch {short_path(records.directory)}; Ctrl-C leaves it to itself", flush=True)
    try:
        return follow(records, cluster, Interrupts())
    except KeyboardInterrupt:
        print(f"\nIt goes on. To stop it: {command_on('cancel', records)}")
        return INTERRUPTED
