"""``python -m launcher list``: the launches of a recipe, and what has become of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from rich.text import Text

    from launcher.display.catalogue import Entry


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument("--recipe", metavar="DIR")
    parser.add_argument("--json", action="store_true")


def run(options: Namespace) -> int:
    """Print the launches, the latest last; return the exit status."""
    from rich.console import Console

    from launcher.display.catalogue import entries
    from launcher.display.render import short_path
    from launcher.launches import launches_folder
    from launcher.recipe import current_dir

    found = entries(options.recipe, working_dir=current_dir())
    if options.json:
        import json

        print(json.dumps([entry.to_record() for entry in found], indent=2))
        return 0
    if not found:
        folder = launches_folder(options.recipe, working_dir=current_dir())
        print(f"there are no launches in {short_path(folder)}")
        return 0
    console = Console(highlight=False)
    console.print(table(found), end="", soft_wrap=True)
    for said in dict.fromkeys(entry.unasked for entry in found if entry.unasked):
        print(said)
    return 0


def table(found: Sequence[Entry]) -> Text:
    """Return a line for each launch."""
    from rich.text import Text

    from launcher.display.render import STYLES

    names: dict[str, Any] = {
        "launch": [entry.name for entry in found],
        "made": [_when(entry.created) for entry in found],
        "cluster": [entry.cluster for entry in found],
        "state": [entry.in_words for entry in found],
    }
    widths = {name: max(len(name), *map(len, cells)) for name, cells in names.items()}
    head = "  ".join(f"{name:{widths[name]}}" for name in names).rstrip()
    text = Text(f"{head}\n", style="bold")
    for number, entry in enumerate(found):
        for name, cells in names.items():
            style = STYLES.get(entry.state, "") if name == "state" else ""
            text.append(f"{cells[number]:{widths[name]}}", f"not bold {style}".strip())
            text.append("  ")
        text.rstrip()
        text.append("\n")
    return text


def _when(created: float | None) -> str:
    return "?" if created is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
