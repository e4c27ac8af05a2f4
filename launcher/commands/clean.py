"""``python -m launcher clean``: remove old launches, and what killed jobs have left."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from launcher.clean.cleaning import Cleaning

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_MOST_AGE_S = 36500 * _UNITS_S["d"]
_SHOWN_KEPT = 5

EXAMPLE = "clean --older-than 2w --keep 5 --dry-run"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_recipe

    parser.add_argument(
        "--older-than",
        default="30d",
        metavar="AGE",
        help="remove launches that ended this long ago: a number and m, h, d or w, for minutes, "
        "hours, days or weeks (default: 30d)",
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=0,
        metavar="N",
        help="keep the latest N launches whatever their age (default: 0)",
    )
    add_recipe(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="only show what would be removed"
    )


def run(options: Namespace) -> int:
    """Show what can go, ask, and remove it; return the exit status."""
    from launcher.clean.cleaning import plan_cleaning, remove
    from launcher.processes.terminal import is_terminal
    from launcher.recipe import current_dir

    older_than_s, working_dir = age_s(options.older_than), current_dir()

    def plan() -> Cleaning:
        return plan_cleaning(
            options.recipe, working_dir=working_dir, older_than_s=older_than_s, keep=options.keep
        )

    found = plan()
    print("\n".join(lines(found)))
    if not found.leftovers or options.dry_run:
        return 0
    if not options.yes:
        if not is_terminal():
            print("launcher: nothing was removed. Add --yes to remove it.", file=sys.stderr)
            return 1
        if input("Remove it? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
        found = plan().only(found.leftovers)  # much may have happened while nobody answered
    done = remove(found)
    print(f"removed {len(done.removed)}, freed {size(done.freed_bytes)}")
    for problem in done.problems:
        print(f"launcher: {problem}", file=sys.stderr)
    return 1 if done.problems else 0


def age_s(text: str) -> float:
    """Read an age, such as ``30d``, ``12h`` or ``2w``.

    Raises:
        UsageError: it is none.
    """
    from launcher.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    age = None if found is None else float(found[1]) * _UNITS_S[found[2]]
    if age is None or age > _MOST_AGE_S:
        raise UsageError(
            f"--older-than {text[:40]}: an age is a number and its unit: m, h, d or w, such as "
            "30d, and at most 36500d."
        )
    return age


def lines(found: Cleaning) -> list[str]:
    """Return what can go, a line for each, and what is kept and why."""
    from launcher.display.render import short_path
    from launcher.printable import printable

    told = [
        f"{each.kind:9}  {size(each.size_bytes) if each.path else '':>8}  {printable(each.name)}"
        f"\n{'':21}{each.why}"
        for each in found.leftovers
    ]
    where = short_path(found.folder)
    if told:
        number = len(found.leftovers)
        told.append(f"can be removed: {number}, {size(found.size_bytes)}; launches are in {where}")
    else:
        told.append(f"nothing to remove; launches are in {where}")
    for why, number in found.why_kept().most_common(_SHOWN_KEPT):
        names = [path.name for path, each in found.kept.items() if each == why]
        told.append(f"kept: {printable(names[0]) if number == 1 else number}, {why}")
    return [*told, *found.unasked]


def size(size_bytes: int) -> str:
    """Put a number of bytes into what is read at a glance: ``12 MB``."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
