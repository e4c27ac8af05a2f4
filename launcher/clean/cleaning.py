"""All that can go, in the order in which it goes; and its removal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launcher.clean.containers import orphans
from launcher.clean.launches import old_launches
from launcher.clean.leftover import Leftover
from launcher.clean.scratch import left_scratch, unused_roots
from launcher.config import load_config
from launcher.errors import LauncherError
from launcher.launch import image_cache
from launcher.launches.dirs import launches_dir
from launcher.recipe import find_recipe
from launcher.settings.ranges import check_option

_MOST_KEPT, _MOST_AGE_S = 1_000_000, 100 * 365 * 86400.0


@dataclass(frozen=True)
class Cleaning:
    """What there is to be removed.

    Attributes:
        folder: of the launch directories.
        leftovers: what can go: containers first, which may work in a launch directory.
        kept: why each of the other launch directories is kept.
        unasked: what could not be looked at.
    """

    folder: Path
    leftovers: Sequence[Leftover] = ()
    kept: dict[Path, str] = field(default_factory=dict)
    unasked: Sequence[str] = ()

    @property
    def size_bytes(self) -> int:
        """Room that it takes."""
        return sum(each.size_bytes for each in self.leftovers)

    def only(self, others: Sequence[Leftover]) -> Cleaning:
        """Return what is among others as well: what was agreed to, and still can go."""
        agreed = {(each.kind, each.name) for each in others}
        left = [each for each in self.leftovers if (each.kind, each.name) in agreed]
        return Cleaning(self.folder, left, self.kept, self.unasked)

    def why_kept(self) -> Counter[str]:
        """Count the launches that are kept, by what is said of them."""
        return Counter(self.kept.values())


@dataclass(frozen=True)
class Cleaned:
    """What was removed, the bytes that were freed, and what could not be."""

    removed: Sequence[Leftover]
    freed_bytes: int
    problems: Sequence[str] = ()


def plan_cleaning(
    recipe: str | None, *, working_dir: Path, older_than_s: float, keep: int = 0
) -> Cleaning:
    """Look for what can go. Nothing is removed.

    Args:
        recipe: its folder; None for the working directory's, or the project's default.
        working_dir: where the command was typed.
        older_than_s: seconds for which nothing has happened to a launch that can go.
        keep: number of launches, the latest ones, that are kept whatever their age.

    Raises:
        LauncherError: there is no such recipe, a number is out of range, or the folder cannot be
            read.
    """
    check_option("--keep", keep, most=_MOST_KEPT)
    check_option("older_than_s", older_than_s, most=_MOST_AGE_S)
    found = find_recipe(recipe, working_dir=working_dir)
    config = load_config({}, [], recipe_dir=found.directory)
    folder = launches_dir(found, config)
    now_s = time.time()
    launches, kept = old_launches(folder, older_than_s=older_than_s, keep=keep, now_s=now_s)
    containers, unasked = orphans(folder, found.directory)
    others = [
        *left_scratch(now_s=now_s),
        *unused_roots(image_cache(config), older_than_s=older_than_s, now_s=now_s),
    ]
    return Cleaning(folder, [*containers, *launches, *others], kept, unasked)


def remove(cleaning: Cleaning) -> Cleaned:
    """Remove what was found; what cannot be removed is told, and the rest goes all the same."""
    removed: list[Leftover] = []
    problems: list[str] = []
    for each in cleaning.leftovers:
        try:
            each.remove()
            removed.append(each)
        except LauncherError as error:
            problems.append(str(error))
    with suppress(LauncherError):
        left = {each.name for each in orphans(cleaning.folder, None)[0]}
        still = [each for each in removed if each.kind == "container" and each.name in left]
        problems += [f"container {each.name} is still there" for each in still]
        removed = [each for each in removed if each not in still]
    return Cleaned(removed, sum(each.size_bytes for each in removed), problems)
