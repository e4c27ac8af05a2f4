"""``python -m launcher logs``: what a stage printed; with ``-f``, as it prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "logs train -n 20 -f"
_MOST_LINES = 10**15


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import LAUNCH_OR_STAGE, add_recipe

    parser.add_argument(
        "words",
        nargs="*",
        metavar="LAUNCH or STAGE",
        help=f"{LAUNCH_OR_STAGE} (default: the one that runs, else failed, else began last)",
    )
    add_recipe(parser)
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="go on until the stage has ended, and down the chain where none is named",
    )
    parser.add_argument(
        "-n", "--lines", type=int, metavar="LINES", help="the last LINES lines (default: all)"
    )
    parser.add_argument(
        "--log", action="store_true", help="the stage's own log, in place of all that it printed"
    )


def run(options: Namespace) -> int:
    """Print it; return the exit status."""
    from launcher.display.stage_output import (
        follow_stages,
        say_stage,
        show_stage,
        stage_of_interest,
    )
    from launcher.launches import find_stages
    from launcher.processes.interrupts import INTERRUPTED
    from launcher.recipe import current_dir
    from launcher.settings.ranges import check_option

    if options.lines is not None:
        check_option("-n", options.lines, most=_MOST_LINES)
    records, stages = find_stages(options.words, options.recipe, working_dir=current_dir())
    try:
        if options.follow:
            follow_stages(records, stages, num_lines=options.lines, log=options.log)
        else:
            for stage in stages or [stage_of_interest(records)]:
                if len(stages) != 1:
                    say_stage(stage)
                show_stage(records, stage, num_lines=options.lines, log=options.log)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
