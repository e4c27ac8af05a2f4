"""``python -m launcher report``: a launch as one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "report mini_an4 --output report.html"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_launch, add_recipe

    add_launch(parser)
    add_recipe(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the file that is written (default: report.html in the launch's folder)",
    )


def run(options: Namespace) -> int:
    """Write the report, say where it is, and return the exit status."""
    from launcher.display.render import short_path
    from launcher.errors import UsageError
    from launcher.launches import find_launch
    from launcher.recipe import current_dir
    from launcher.report import report

    if options.output == "":
        raise UsageError("--output is empty. Give it the name of a file, or leave it out.")
    working_dir = current_dir()
    records = find_launch(options.launch, options.recipe, working_dir=working_dir)
    output = None if options.output is None else working_dir / options.output
    print(f"report {short_path(report(records, output=output))}")
    return 0
