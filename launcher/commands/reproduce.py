"""``python -m launcher reproduce``: a launch again, from its record alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument("launch", nargs="?", metavar="LAUNCH")
    parser.add_argument("--recipe", metavar="DIR")
    parser.add_argument("--anyway", action="store_true")
    parser.add_argument("--dry-run", "--dry_run", action="store_true")
    parser.add_argument("--follow", action="store_true")


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
        return show_plan(made.prepared)
    if not options.anyway:
        made.refuse_differences()
    command_line = ["reproduce", str(records.directory)]
    command_line += ["--anyway"] if options.anyway else []
    return hand_over(
        made.prepared, made.request, command_line, follow=options.follow, continued=made.continued
    )
