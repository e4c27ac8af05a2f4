"""``python -m launcher rerun``: run one stage of a launch again, whether it still holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.commands.arguments import AS_IT_WAS, LAUNCH, SETTING, add_recipe, add_submission

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "rerun infer --downstream --follow"
INSTEAD = AS_IT_WAS


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="STAGE, LAUNCH or key=value",
        help=f"the stage; {LAUNCH}; {SETTING}",
    )
    parser.add_argument("--downstream", action="store_true", help="run the stages after it as well")
    add_recipe(parser)
    add_submission(parser)


def run(options: Namespace) -> int:
    """Run the stage again; return the exit status.

    Raises:
        UsageError: not exactly one stage is named.
    """
    from launcher.again.resume import plan_rerun
    from launcher.commands.resume import go_on, split_settings
    from launcher.errors import UsageError
    from launcher.launches import find_stages
    from launcher.processes.interrupts import orderly_end
    from launcher.recipe import current_dir

    words, settings = split_settings(options.words)
    records, stages = find_stages(words, options.recipe, working_dir=current_dir())
    if len(stages) != 1:
        known = ", ".join(str(job["stage"]) for job in records.read_launch()["jobs"])
        raise UsageError(
            f"name one stage of launch {records.directory.name}: {known}. For it and all after it "
            "add --downstream."
        )
    with orderly_end():
        rerun = plan_rerun(records, stages[0], downstream=options.downstream, settings=settings)
    command_line = ["rerun", stages[0], str(records.directory), *settings]
    command_line += ["--downstream"] if options.downstream else []
    return go_on(rerun, command_line, options)
