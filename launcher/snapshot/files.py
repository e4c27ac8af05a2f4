"""The files of the code on which a stage's work depends, by content, and which of them differ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from launcher.errors import RecordError
from launcher.printable import printable
from launcher.recipe import project_root
from launcher.recorded.files import read_json
from launcher.recorded.schemas import manifest
from launcher.snapshot import MANIFEST
from launcher.snapshot.copy import read_all
from launcher.snapshot.plan import SnapshotPlan

# What explains and tests, and what a command leaves where it was typed (nohup.out, slurm-7.out);
# what configures counts by what it resolves to.
_OTHER_SUFFIXES = frozenset((".md", ".rst", ".log", ".out", ".err"))
_CONFIG_SUFFIXES = frozenset((".yaml", ".yml"))
_OTHER_FOLDERS = frozenset(("docs", "tests"))
_CONFIG_FOLDER = "conf"
# Of the launcher's own project: what is not run by a stage, and images, which have their digest.
_OF_LAUNCHER = frozenset(("launcher", "containers", "requirements"))


@dataclass(frozen=True)
class CodeFiles:
    """Files by path, each with its mode and SHA-256 in one text.

    Attributes:
        is_whole: whether something is known of each code root; not of one in no git work tree.
    """

    files: Mapping[str, str]
    is_whole: bool = True

    @classmethod
    def now(cls, plan: SnapshotPlan) -> CodeFiles:
        """Read what a snapshot would hold, as it is in the tree.

        Raises:
            LauncherError: it changed while it was read.
            OSError: a file cannot be read.
        """
        roots = [str(root.path) for root in plan.roots]
        contents = read_all(plan.entries, None)
        return cls._of(
            roots, ((each.root, each.name, told.mode, told.sha256) for each, told in contents)
        )

    @classmethod
    def recorded(cls, snapshot: Path) -> CodeFiles:
        """Read what a snapshot held, from its folder's manifest.

        Raises:
            RecordError: it cannot be read.
        """
        path = snapshot / MANIFEST
        try:
            roots, entries = manifest(read_json(path))
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{path} cannot be read as the manifest of a snapshot: {error}"
            ) from error
        return cls._of(roots, ((root, name, mode, sha) for root, name, mode, sha, *_ in entries))

    @classmethod
    def _of(cls, roots: list[str], entries: Iterable[tuple[int, str, str, str]]) -> CodeFiles:
        project = str(project_root())
        known, seen = {}, set()
        for root, name, mode, sha256 in entries:
            seen.add(root)
            if is_run(name, is_project=roots[root] == project):
                known[f"{roots[root]}/{name}"] = f"{mode} {sha256}"
        return cls(known, is_whole=len(seen) == len(roots))

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 over paths, modes and contents; None where not all of the code is known."""
        if not self.files or not self.is_whole:
            return None
        lines = sorted(os.fsencode(f"{path}\0{told}\n") for path, told in self.files.items())
        return hashlib.sha256(b"".join(lines)).hexdigest()

    def differing(self, now: CodeFiles, *, below: Path) -> list[str]:
        """Name the files that are not the same in both; relative to a folder where they are in it.

        Args:
            now: the other.
            below: as a rule the code root of the recipe.
        """
        paths = sorted(self.files.keys() | now.files.keys())
        named = []
        for path in paths:
            before, after = self.files.get(path), now.files.get(path)
            if before != after:
                how = " (new)" if before is None else " (deleted)" if after is None else ""
                short = path.removeprefix(f"{below}/")
                named.append(printable(short) + how)
        return named


def is_run(name: str, *, is_project: bool) -> bool:
    """Tell whether a file of the code, relative to its root, may have a say in what a stage makes.

    YAML in a folder ``conf`` has its say by the configs that are resolved from it.
    """
    path = PurePosixPath(name)
    folders = path.parent.parts
    if path.suffix in _OTHER_SUFFIXES or not _OTHER_FOLDERS.isdisjoint(folders):
        return False
    if any(part.startswith(".git") for part in path.parts):
        return False
    if path.suffix in _CONFIG_SUFFIXES and (_CONFIG_FOLDER in folders or not folders):
        return False
    return not (is_project and folders and folders[0] in _OF_LAUNCHER)
