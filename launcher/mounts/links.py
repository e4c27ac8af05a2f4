"""What symlinks in mounted trees lead to is mounted as well, within bounds."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from launcher.mounts.image_folders import refusal
from launcher.mounts.layout import MountSet, Placed
from launcher.printable import printable
from launcher.snapshot.tree import CACHES

# Of each tree that is looked at: entries of folders, and levels.
MAX_ENTRIES = 50_000
MAX_DEPTH = 64
# Links to this many files of one folder: the folder is mounted instead.
MANY_FILES = 8
# With this many mounts that links led to, folders are mounted that hold several of them.
MANY_MOUNTS = 64
MAX_MOUNTS = 400
# Links can lead to the same folder under one new name after the other: ../x in a folder that is
# mounted as far/y is far/x, where the next one is found.
MAX_NAMES = 4
# What is in them leads to software, or to other launches.
_PASSED_OVER = CACHES | {".git", ".launches", ".venv", "node_modules"}
_LAUNCH_MARKS = {"launch.json", "events"}


def find_links(
    folder: str, *, max_entries: int, passed_over: Collection[str] = ()
) -> tuple[list[str], bool]:
    """Return the symlinks below a folder, relative to it, those near the top first.

    Args:
        folder: where to look.
        max_entries: how many entries of folders are looked at.
        passed_over: further folders, by their whole path, that are not entered.

    Returns:
        The links, and whether all of the folder was looked at.
    """
    links: list[str] = []
    folders = deque([("", 0)])
    num_seen = 0
    while folders:
        prefix, depth = folders.popleft()
        try:
            with os.scandir(f"{folder}/{prefix}") as scanned:
                entries = list(scanned)
        except OSError:  # not ours to read, or deleted meanwhile
            continue
        if prefix and {entry.name for entry in entries} >= _LAUNCH_MARKS:
            continue
        num_seen += len(entries)
        for entry in entries:
            if entry.is_symlink():
                links.append(prefix + entry.name)
            elif (
                entry.is_dir(follow_symlinks=False)
                and entry.name not in _PASSED_OVER
                and os.path.normpath(entry.path) not in passed_over
            ):
                folders.append((f"{prefix}{entry.name}/", depth + 1))
        if folders and (num_seen >= max_entries or folders[0][1] > MAX_DEPTH):
            return links, False
    return links, True


class LinkFollower:
    """Adds to mounts what links in them lead to."""

    def __init__(
        self,
        places: MountSet,
        *,
        is_wanted: Callable[[str], bool],
        tell: Callable[[str], None],
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        """Follow nothing yet.

        Args:
            places: the mounts.
            is_wanted: tells whether something that a link leads to may be mounted.
            tell: takes a notice for the person at the terminal.
            max_entries: of each tree that is looked at.
        """
        self.places, self._is_wanted, self._tell = places, is_wanted, tell
        self._max_entries = max_entries
        self._scanned: set[str] = set()
        self._files: dict[str, list[str]] = {}  # by their folder
        self._covered: set[str] = set()
        self._names: Counter[str] = Counter()
        self._merged = 0  # how many there were when they were last merged

    def follow(self) -> None:
        """Follow links, and links in what these lead to, until there is no more to be mounted."""
        while True:
            targets = [target for target in self.places if target not in self._scanned]
            if not targets and self.places.settle():
                return
            for target in targets:
                self._scanned.add(target)
                self._covered.clear()  # what a name leads to may have changed
                if target in self.places and Path(self.places[target].source).is_dir():
                    self._follow_from(target, self.places[target].source)
                self._merge()
                if len(self.places) > MAX_MOUNTS:
                    self._tell(
                        f"links lead to more than {MAX_MOUNTS} places, the last of them to "
                        f"{printable(max(self.places, key=len))}; not all are mounted. Name a "
                        "folder that holds what stages need: mounts=[PATH]."
                    )
                    return

    def _follow_from(self, target: str, source: str) -> None:
        others = {self.places[each].source for each in self.places}
        links, is_all = find_links(source, max_entries=self._max_entries, passed_over=others)
        if not is_all:
            self._tell(
                f"{printable(target)} holds so much that not all of its links were looked at. If "
                "one of them leads elsewhere, name the folder that it leads to: mounts=[PATH]."
            )
        for link in links:
            if not self._is_covered(f"{target}/{link}", f"{source}/{link}"):
                try:
                    led_to = os.path.realpath(f"{source}/{link}")
                except OSError:  # /proc/1/root
                    continue  # who may not look there on the host may not in a container either
                self._mount(f"{target}/{link}", led_to)
                if len(self.places) > self._merged + MANY_MOUNTS:
                    self._merge()
                    self._merged = len(self.places)

    def _is_covered(self, link: str, on_host: str) -> bool:
        """Tell whether a link leads into a folder that is mounted: quick for thousands of them.

        If what is there is a link in its turn, it is found where that folder is looked at.
        """
        try:
            text = os.readlink(on_host)  # noqa: PTH115  (Path would tidy it)
        except OSError:
            return True  # deleted meanwhile
        folder, name = os.path.split(os.path.join(os.path.dirname(link), text))  # noqa: PTH118,PTH120
        if name in ("", ".", ".."):
            return False
        if folder not in self._covered:
            resolved = self.places.resolve(folder)
            if resolved is None or self.places.covering(resolved) is None:
                return False
            self._covered.add(folder)
        return True

    def _mount(self, link: str, real: str) -> None:
        path = self.places.resolve(link)
        if path is None or self.places.covering(path) is not None or not os.path.exists(real):  # noqa: PTH110
            return
        # On the host there may be nothing under that name: ".." leads to another place inside a
        # folder that is mounted under the name of a link.
        names = [path, real] if os.path.exists(path) else [real]  # noqa: PTH110
        if refusal(Path(path)) is not None or not all(map(self._is_wanted, names)):
            return
        self._names[real] += 1
        if self._names[real] > MAX_NAMES:
            return
        is_dir = os.path.isdir(real)  # noqa: PTH112
        source = path if os.path.realpath(path) == real else real
        self.places.place(path, Placed(source, read_only=not is_dir, asked=False))
        if not is_dir:
            folder = os.path.dirname(path)  # noqa: PTH120
            files = self._files.setdefault(folder, [])
            files.append(path)
            if len(files) >= MANY_FILES and self._can_replace(folder, files):
                self._replace(folder, files)
                files.clear()

    def _merge(self) -> None:
        """Mount folders that hold several things that links lead to, where those are too many."""
        while True:
            found = [target for target in self.places if not self.places[target].asked]
            surplus = len(found) - MANY_MOUNTS
            if surplus <= 0:
                return
            inside = Counter(str(parent) for each in found for parent in Path(each).parents)
            # The deepest folder that is enough by itself, else the one that holds the most.
            several = [folder for folder in inside if inside[folder] > 1]
            several.sort(key=lambda each: (-min(inside[each], surplus + 1), -each.count("/")))
            for folder in several:
                held = [each for each in found if each.startswith(f"{folder}/")]
                if self._can_replace(folder, held):
                    self._replace(folder, held)
                    break
            else:
                return

    def _can_replace(self, folder: str, targets: Iterable[str]) -> bool:
        return (
            folder not in self.places
            and os.path.isdir(folder)  # noqa: PTH112
            and self._is_wanted(folder)
            and all(self.places[each].source == each for each in targets if each in self.places)
        )

    def _replace(self, folder: str, targets: Iterable[str]) -> None:
        held = [each for each in targets if each in self.places]
        read_only = all(self.places[each].read_only for each in held)
        for each in held:
            self.places.remove(each)
        self.places.place(folder, Placed(folder, read_only, asked=False))
