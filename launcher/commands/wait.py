"""``python -m launcher wait``: for scripts; its exit status tells whether all stages are done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from launcher.records import LaunchRecords
    from launcher.view import LaunchView

_POLL_S = 0.5
_ASK_EVERY_S = 5.0
_MOST_MIN = 5_256_000.0  # ten years
NOT_IN_TIME = 124  # as timeout(1) has it

EXAMPLE = "wait --timeout-min 90 --quiet"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_launch, add_recipe

    add_launch(parser)
    add_recipe(parser)
    parser.add_argument(
        "--timeout-min",
        type=float,
        metavar="MINUTES",
        help="give up after so many minutes, with exit status 124 (default: never)",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def run(options: Namespace) -> int:
    """Wait; return the exit status: 0 when every stage is done, 124 when time ran out, else 1."""
    from rich.console import Console

    from launcher.commands.status import show
    from launcher.launches import find_launch
    from launcher.processes.interrupts import INTERRUPTED
    from launcher.recipe import current_dir
    from launcher.settings.ranges import check_option
    from launcher.status import DONE

    if options.timeout_min is not None:
        check_option("--timeout-min", options.timeout_min, most=_MOST_MIN)
    records = find_launch(options.launch, options.recipe, working_dir=current_dir())
    timeout_s = None if options.timeout_min is None else options.timeout_min * 60
    try:
        view = wait_for(records, timeout_s=timeout_s)
    except KeyboardInterrupt:
        return INTERRUPTED
    if not options.quiet:
        show(view, Console(highlight=False))
    if not view.has_ended:
        return NOT_IN_TIME
    return 0 if view.state == DONE else 1


def wait_for(records: LaunchRecords, *, timeout_s: float | None = None) -> LaunchView:
    """Wait until every stage of a launch has ended; return it as it is then.

    A scheduler that does not answer is asked again: nothing is taken to have ended for that.

    Args:
        records: of the launch.
        timeout_s: seconds after which it is returned as it is; None for no limit.
    """
    from launcher.launches.reach import look
    from launcher.settings.ranges import check_option
    from launcher.status import chain_status

    if timeout_s is not None:
        check_option("timeout_s", timeout_s, most=_MOST_MIN * 60)
    deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while True:
        view = look(records)
        if view.has_ended:
            return view
        asked_s = time.monotonic()
        while time.monotonic() < asked_s + _ASK_EVERY_S:
            if time.monotonic() > deadline:
                return view
            time.sleep(_POLL_S)
            if all(status.has_ended for status in chain_status(records)):
                break
