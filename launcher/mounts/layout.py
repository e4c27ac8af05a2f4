"""Mounts as they take shape: which path a name leads to where only they are seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.containers.base import Mount

_MAX_LINKS = 40  # as the kernel has it (path_resolution(7))


@dataclass(frozen=True)
class Placed:
    """What is mounted at a target.

    Attributes:
        source: path on the host.
        read_only: whether it is mounted so.
        asked: it is mounted because it has to be, or was asked for; not because its name was found
            in a setting or a link.
    """

    source: str
    read_only: bool
    asked: bool


class MountSet:
    """Mounts by their targets, and the file system that a container would see through them.

    Outside of all mounts there are only plain folders, which the runtime makes for the targets.
    """

    def __init__(self) -> None:
        self._placed: dict[str, Placed] = {}

    def __len__(self) -> int:
        return len(self._placed)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._placed))

    def __contains__(self, target: object) -> bool:
        return target in self._placed

    def __getitem__(self, target: str) -> Placed:
        return self._placed[target]

    def place(self, target: str, placed: Placed) -> None:
        """Mount something; what was asked for stays where the same is found once more."""
        before = self._placed.get(target)
        if before is None or (placed.asked and not before.asked):
            self._placed[target] = placed

    def remove(self, target: str) -> None:
        """Take a mount away again."""
        del self._placed[target]

    def covering(self, path: str, *, without: str | None = None) -> str | None:
        """Return the target of the mount that a path lies in; None outside of all."""
        while True:
            if path in self._placed and path != without:
                return path
            if path == "/":
                return None
            path = os.path.dirname(path)  # noqa: PTH120

    def on_host(self, path: str, *, without: str | None = None) -> str:
        """Return where on the host a path of the container is; itself outside of all mounts."""
        target = self.covering(path, without=without)
        if target is None:
            return path
        return self._placed[target].source + path[len(target) :]

    def resolve(self, path: str, *, without: str | None = None) -> str | None:
        """Follow the links of an absolute path as a process in the container would.

        Args:
            path: what the process names.
            without: the target of a mount that is left out.

        Returns:
            The path without links, or None where links go round in circles.
        """
        resolved, rest, links = "/", _parts(path), 0
        while rest:
            part = rest.pop()
            if part == "..":
                resolved = os.path.dirname(resolved)  # noqa: PTH120
                continue
            step = f"{resolved.rstrip('/')}/{part}"
            target = self.covering(step, without=without)
            text = None if target in (None, step) else _link(self.on_host(step, without=without))
            if text is None:
                resolved = step
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            rest += _parts(text)
            if text.startswith("/"):
                resolved = "/"
        return resolved

    def settle(self) -> bool:
        """Move mounts whose targets have come to lie behind a link to where that leads.

        Returns:
            Whether nothing had to be moved.
        """
        settled = True
        for target in sorted(self._placed):
            placed = self._placed[target]
            resolved = self.resolve(target, without=target)
            if resolved != target:
                settled = False
                del self._placed[target]
                if resolved is not None and (placed.asked or self.covering(resolved) is None):
                    self.place(resolved, placed)
        return settled

    def mounts(self) -> list[Mount]:
        """Return the mounts, each before those below it, without those that change nothing."""
        kept = []
        for target in sorted(self._placed, key=_order):
            placed = self._placed[target]
            parent = self.covering(target, without=target)
            if parent is not None and self._adds_nothing(target, placed, parent):
                continue
            kept.append(Mount(Path(placed.source), Path(target), placed.read_only))
        return kept

    def _adds_nothing(self, target: str, placed: Placed, parent: str) -> bool:
        around = self._placed[parent]
        if os.path.realpath(around.source + target[len(parent) :]) != os.path.realpath(
            placed.source
        ):
            return False
        if around.read_only == placed.read_only:
            return True
        # What was merely found does not change how a person wants a folder around it.
        return not placed.asked and (around.asked or not around.read_only)


def _order(target: str) -> list[str]:
    return target.split("/")


def _parts(path: str) -> list[str]:
    """Return the parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115  (Path would tidy it)
    except OSError:
        return None
