"""What several commands on launches take, said once, and what a mistake among it gets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NoReturn

from launcher.errors import UsageError, did_you_mean

PROGRAM = "python -m launcher"
LAUNCH = (
    "a launch: its folder, its name, or any part of the name that no other has (default: the "
    "latest of the recipe)"
)
LAUNCH_OR_STAGE = f"{LAUNCH}; and stages of it"
SETTING = "settings, over those of that launch: stages.train.timeout_min=240"
# What a launch that goes on from another does not take, and what there is instead.
AS_IT_WAS: Mapping[str, str] = {
    "--cluster": "It runs on the cluster it ran on. To run elsewhere, launch anew, where stages "
    "keep what they find done: python -m launcher --cluster NAME",
    "--container": "It runs in the container it ran in. For another one, launch anew, where "
    "stages keep what they find done: python -m launcher --container NAME",
    "--stages": "It has the stages that it had. One of them alone: python -m launcher rerun STAGE",
}


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one message, with what was likely meant.

    ``instead`` says of options that there are elsewhere what to type in this command.
    """

    instead: Mapping[str, str] = {}

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        command = self.prog.removeprefix(f"{PROGRAM} ")
        for word in message.partition("unrecognized arguments: ")[2].split():
            flag = word.partition("=")[0]
            if flag.startswith("-"):
                raise UsageError(f"{command} has no option {flag}.{self._hint(flag)}")
        raise UsageError(f"{command}: {message}. {self.prog} --help says what there is.")

    def _hint(self, flag: str) -> str:
        if flag in self.instead:
            return f" {self.instead[flag]}"
        own = [name for name in self._option_string_actions if name.startswith("--")]
        told = did_you_mean(flag, own) if flag.startswith("--") else ""
        return told or f" Options: {', '.join(sorted(set(own) - {'--dry_run'}))}."


def add_launch(parser: argparse.ArgumentParser) -> None:
    """Add the launch that is meant, where nothing else is named."""
    parser.add_argument("launch", nargs="?", metavar="LAUNCH", help=LAUNCH)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe whose launches are meant."""
    parser.add_argument(
        "--recipe",
        metavar="DIR",
        help="the recipe whose launches are meant: a folder with a run.py (default: the working "
        "directory if it has one, else the project's default recipe)",
    )


def add_submission(parser: argparse.ArgumentParser) -> None:
    """Add what any command takes that submits a launch."""
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="show what would be submitted; create and submit nothing",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="stay, show progress, end with a table of results; Ctrl-C then cancels the launch",
    )
    parser.add_argument(
        "--queue",
        action="store_true",
        help="wait for a launch that writes to the same folders, which is otherwise a reason to "
        "refuse this one",
    )
