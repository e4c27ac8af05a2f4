"""``python -m launcher completion``: the script by which a shell completes the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "completion bash"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.completion import SHELLS

    parser.add_argument(
        "shell",
        choices=SHELLS,
        help="the shell; the first lines of the script say where it goes",
    )


def run(options: Namespace) -> int:
    """Print the script; return the exit status."""
    from launcher.completion import SCRIPTS

    print(SCRIPTS[options.shell], end="")
    return 0
