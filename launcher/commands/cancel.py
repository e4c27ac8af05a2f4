"""``python -m launcher cancel``: stop what runs, and see that what waits never does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from launcher.records import LaunchRecords

EXAMPLE = "cancel train"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import LAUNCH_OR_STAGE, add_recipe

    parser.add_argument(
        "words",
        nargs="*",
        metavar="LAUNCH or STAGE",
        help=f"{LAUNCH_OR_STAGE}, which take those after them along",
    )
    add_recipe(parser)
    parser.add_argument(
        "--force", action="store_true", help="kill at once, without the time to save work"
    )


def run(options: Namespace) -> int:
    """Cancel the launch, or stages of it and what comes after them; return the exit status."""
    from launcher.launches import find_open_launch, find_stages
    from launcher.recipe import current_dir

    records, stages = find_stages(
        options.words, options.recipe, working_dir=current_dir(), default=find_open_launch
    )
    return cancel_launch(records, stages, force=options.force)


def cancel_launch(records: LaunchRecords, stages: Sequence[str] = (), *, force: bool) -> int:
    """Cancel what has not ended, wait for it, and print what has become of the launch.

    Args:
        records: of the launch.
        stages: that are cancelled, with all that come after them; none for all.
        force: kill them without asking.

    Returns:
        Exit status: 0 when every one of them has ended, else 1.
    """
    from rich.console import Console

    from launcher.display.render import launch_rows, short_path
    from launcher.display.summary import show
    from launcher.launches import command_on
    from launcher.launches.cancelling import start_cancelling, with_downstream

    cancellation = start_cancelling(records, stages, force=force)
    shown = short_path(records.directory)
    if cancellation.stages:
        doing = "killing" if force else "cancelling"
        print(f"launch {shown}: {doing} {', '.join(cancellation.stages)}")
    else:
        which = f"{', '.join(with_downstream(records, stages))}" if stages else "every stage"
        print(f"launch {shown}: {which} had ended already, nothing to cancel")
    lasting = cancellation.wait()
    show(launch_rows(records, cancellation.cluster), Console(highlight=False))
    if lasting:
        again = command_on("cancel", records, *stages)
        print(f"\nStill there: {', '.join(lasting)}. To kill it: {again} --force")
    return 1 if lasting else 0
