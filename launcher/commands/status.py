"""``python -m launcher status``: what has become of a launch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from launcher.records import LaunchRecords
    from launcher.view import LaunchView

EXAMPLE = "status mini_an4 --watch"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_launch, add_recipe

    add_launch(parser)
    add_recipe(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it again and again until it has ended; Ctrl-C ends the watching alone",
    )
    parser.add_argument(
        "--json", action="store_true", help="print it as JSON, times and durations in seconds"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say also what has changed since, and what would run again",
    )


def run(options: Namespace) -> int:
    """Print what has become of the launch; return the exit status."""
    from rich.console import Console

    from launcher.errors import UsageError
    from launcher.launches import find_launch
    from launcher.launches.reach import look
    from launcher.recipe import current_dir

    if options.watch + options.json + options.explain > 1:
        raise UsageError("--watch, --json and --explain exclude each other. Choose one of them.")
    records = find_launch(options.launch, options.recipe, working_dir=current_dir())
    if options.json:
        import json

        print(json.dumps(look(records).to_record(), indent=2))
        return 0
    if options.watch:
        return watch(records, Console(highlight=False))
    show_status(records)
    if options.explain:
        from launcher.commands.resume import changed_lines

        print("", *changed_lines(records), sep="\n")
    return 0


def show_status(records: LaunchRecords) -> int:
    """Print what has become of a launch; return the exit status."""
    from rich.console import Console

    from launcher.launches.reach import look

    show(look(records), Console(highlight=False))
    return 0


def watch(records: LaunchRecords, console: Console) -> int:
    """Show the launch until it has ended, or Ctrl-C; return the exit status."""
    from launcher.processes.interrupts import INTERRUPTED

    try:
        if console.is_terminal:
            view = _watch_live(records, console)
        else:
            view = _watch_lines(records, console)
    except KeyboardInterrupt:
        return INTERRUPTED
    show(view, console)
    return 0


def _watch_live(records: LaunchRecords, console: Console) -> LaunchView:
    from rich.live import Live

    from launcher.display.follow import ASK_EVERY_S
    from launcher.display.status_table import status_table
    from launcher.launches.reach import look

    with Live(console=console, transient=True, auto_refresh=False) as live:
        while not (view := look(records)).has_ended:
            table = status_table(view, width=console.width - 1)
            table.append(f"\n{view.in_words}; Ctrl-C ends the watching, not the launch", "dim")
            live.update(table, refresh=True)
            time.sleep(ASK_EVERY_S)
    return view


def _watch_lines(records: LaunchRecords, console: Console) -> LaunchView:
    from launcher.display.follow import ASK_EVERY_S
    from launcher.launches.reach import look

    shown: list[tuple[str, str]] = []
    while not (view := look(records)).has_ended:
        told = [(stage.row.shown_state, stage.status.reason) for stage in view.stages]
        if told != shown:
            shown = told
            print(f"{time.strftime('%H:%M:%S')}  {view.in_words}", flush=True)
        time.sleep(ASK_EVERY_S)
    return view


def show(view: LaunchView, console: Console) -> None:
    """Print a launch: what it is, its stages, their figures, and why one has failed."""
    from launcher.display.render import short_path
    from launcher.display.status_table import status_table
    from launcher.display.summary import show_more, width_of
    from launcher.launches import command_on
    from launcher.records import LaunchRecords
    from launcher.status import CANCELLED, FAILED

    print(f"launch {short_path(view.directory)}: {view.in_words}")
    for said in filter(None, [view.unasked, *view.damaged]):
        print(f"  {said}")
    console.print(status_table(view, width=width_of(console)), end="", soft_wrap=True)
    show_more([stage.row for stage in view.stages], console)
    if view.has_ended and view.state in (FAILED, CANCELLED):
        print(f"\nTo go on from it: {command_on('resume', LaunchRecords(view.directory))}")
