"""``python -m launcher list``: the launches of a recipe, and what has become of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping, Sequence

    from rich.text import Text

    from launcher.display.catalogue import Entry

_GAP, _INDENT = "  ", "    "
# Of a launch, what stands in its line however narrow that is; and what is aligned to the right.
_FIRST, _NUMBERS = ("launch", "state", "took"), ("took", "stages")

EXAMPLE = "list --recipe egs3/fsdd/asr"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_recipe

    add_recipe(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the launches as JSON, times in seconds"
    )


def run(options: Namespace) -> int:
    """Print the launches, the latest last; return the exit status."""
    from rich.console import Console

    from launcher.display.catalogue import entries
    from launcher.display.render import short_path
    from launcher.display.summary import width_of
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
    console.print(table(found, width=width_of(console)), end="", soft_wrap=True)
    for said in dict.fromkeys(entry.unasked for entry in found if entry.unasked):
        print(said)
    return 0


def table(found: Sequence[Entry], *, width: int) -> Text:
    """Return a line for each launch; where that is too narrow, a second one for what is left.

    Args:
        found: the launches.
        width: columns that there are.
    """
    from rich.text import Text

    from launcher.display.render import STYLES

    cells = [_cells(entry) for entry in found]
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names}
    fits = sum(widths.values()) + len(_GAP) * (len(names) - 1) <= width
    shown = names if fits else [name for name in names if name in _FIRST]
    text = Text(f"{_GAP.join(_aligned(name, name, widths) for name in shown).rstrip()}\n", "bold")
    for entry, row in zip(found, cells, strict=True):
        for name in shown:
            style = STYLES.get(entry.state, "") if name == "state" else ""
            text.append(_aligned(row[name], name, widths), f"not bold {style}".strip())
            text.append(_GAP)
        text.rstrip()
        text.append("\n")
        if not fits:
            text.append(_rest(row, width), "not bold")
    return text


def _cells(entry: Entry) -> dict[str, str]:
    from launcher.display.render import duration

    view = entry.view
    return {
        "launch": entry.name,
        "made": _when(entry.created),
        "cluster": entry.cluster,
        "state": view.in_words if view else entry.state,
        "took": duration(view.elapsed_s) if view else "",
        "stages": str(len(view.stages)) if view else "",
        "experiment": view.experiment if view else "",
        "note": entry.note,
    }


def _aligned(text: str, name: str, widths: Mapping[str, int]) -> str:
    return f"{text:>{widths[name]}}" if name in _NUMBERS else f"{text:{widths[name]}}"


def _rest(row: Mapping[str, str], width: int) -> str:
    """Return what has no room beside a launch's name, state and duration, below these."""
    import textwrap

    stages = f"{row['stages']} stages" if row["stages"] else ""
    said = [row["made"], row["cluster"], stages, row["experiment"], row["note"]]
    return (
        textwrap.fill(
            ", ".join(filter(None, said)),
            max(width, 20),
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


def _when(created: float | None) -> str:
    return "?" if created is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
