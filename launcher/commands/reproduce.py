"""``python -m launcher reproduce``: a launch again, from its record alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.commands.arguments import AS_IT_WAS, add_launch, add_recipe, add_submission

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "reproduce 20261122-184112 --dry-run"
INSTEAD = AS_IT_WAS


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    add_launch(parser)
    add_recipe(parser)
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="submit also what would not be as it was; what that is, is said",
    )
    add_submission(parser)


def run(options: Namespace) -> int:
    """Reproduce the launch; return the exit status."""
    from launcher.again.reproduce import plan_reproduction
    from launcher.display.render import short_path
    from launcher.hand_over import hand_over, show_plan
    from launcher.launches import find_launch
    from launcher.recipe import current_dir

    records = find_launch(options.launch, options.recipe, working_dir=current_dir())
    made = plan_reproduction(records)
    print(f"reproduce {short_path(records.directory)}")
    if options.dry_run or options.anyway:
        for difference in made.differences:
            print(f"  not as it was: {difference}")
    if options.dry_run:
        return show_plan(made.prepared, queue=options.queue)
    if not options.anyway:
        made.refuse_differences()
    command_line = ["reproduce", str(records.directory)]
    command_line += ["--anyway"] if options.anyway else []
    return hand_over(
        made.prepared,
        made.request,
        command_line,
        follow=options.follow,
        continued=made.continued,
        queue=options.queue,
    )
