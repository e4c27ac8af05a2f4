"""``python -m launcher logs``: what a stage printed; with ``-f``, as it prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument("words", nargs="*", metavar="LAUNCH or STAGE")
    parser.add_argument("--recipe", metavar="DIR")
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("-n", "--lines", type=int, metavar="N")
    parser.add_argument("--log", action="store_true")


def run(options: Namespace) -> int:
    """Print it; return the exit status."""
    from launcher.display.stage_output import (
        follow_stages,
        say_stage,
        show_stage,
        stage_of_interest,
    )
    from launcher.errors import UsageError
    from launcher.launches import find_stages
    from launcher.processes.interrupts import INTERRUPTED
    from launcher.recipe import current_dir

    if options.lines is not None and options.lines < 0:
        raise UsageError(f"-n {options.lines}: a number of lines is 0 or more")
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
