"""``python -m launcher shell STAGE``: a shell in the image, mounts, environment and GPUs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

# What follows -- is another program's command line.
TAKES_COMMAND = True

EXAMPLE = "shell train -- nvidia-smi"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import LAUNCH, add_recipe

    parser.add_argument(
        "words",
        nargs="+",
        metavar="STAGE or LAUNCH",
        help=f"the stage; {LAUNCH}. What follows -- is run in place of a shell",
    )
    add_recipe(parser)
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="show the command line, and start nothing",
    )


def run(options: Namespace) -> int:
    """Start the shell, or run the command in it; return its exit status."""
    import shlex

    from launcher.errors import UsageError
    from launcher.launches import find_stages
    from launcher.recipe import current_dir
    from launcher.shell import plan_shell

    command = list(options.command)
    records, stages = find_stages(options.words, options.recipe, working_dir=current_dir())
    if len(stages) != 1:
        named = ", ".join(stages) or "none"
        raise UsageError(f"a shell is of one stage, and {named} is named")
    plan = plan_shell(records, stages[0], command, has_terminal=True if options.dry_run else None)
    if options.dry_run:
        print(shlex.join(plan.line) if plan.line else f"here, in {plan.records.directory}")
        return 0
    return plan.run()
