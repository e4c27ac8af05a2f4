"""The code of an earlier launch for another one: its snapshot, verified and copied."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError, RecordError
from launcher.printable import printable
from launcher.recorded.files import read_json
from launcher.recorded.schemas import manifest
from launcher.snapshot import MANIFEST, changed_since
from launcher.snapshot.copy import Vanished, read_content

_MOST_NAMED = 5


@dataclass(frozen=True)
class RecordedCode:
    """The snapshot of an earlier launch.

    Attributes:
        record: what that launch's record says of it.
        source: its folder.
        directory: where it is copied to.
        git: where the recipe's repository stood.
    """

    record: Mapping[str, Any]
    source: Path
    directory: Path
    git: Any = None

    @property
    def is_copied(self) -> bool:
        """Whether the snapshot holds the code; else only what its files were."""
        return bool(self.record["copied"])

    @property
    def diff(self) -> Path | None:
        """What was not committed; None where all was."""
        return _diff_of(self.source) if self.record.get("diff") else None

    def verify(self) -> None:
        """See that every file of the snapshot is as it was when it was made.

        Raises:
            RecordError: it is gone, or the files that it names are not.
        """
        altered = [printable(name) for name in self._altered()] if self.is_copied else []
        if altered:
            named = ", ".join(altered[:_MOST_NAMED])
            more = f" and {len(altered) - _MOST_NAMED} more" if len(altered) > _MOST_NAMED else ""
            raise RecordError(
                f"the snapshot {printable(str(self.source))} is not what was recorded: "
                f"{named}{more}"
            )

    def changed(self) -> list[str]:
        """Name the files of the tree that stages would see otherwise than they were.

        Raises:
            RecordError: it is not on record what they were.
        """
        return [] if self.is_copied else changed_since(self._record(self.source))

    def take(self) -> dict[str, Any]:
        """Copy the snapshot, whole or not at all, and return the record of the copy.

        Raises:
            RecordError: it cannot be copied.
        """
        partial = self.directory.with_name(f".{self.directory.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            shutil.copytree(self.source, partial, symlinks=True)
            partial.rename(self.directory)
            if self.record.get("diff"):
                shutil.copyfile(_diff_of(self.source), _diff_of(self.directory))
        except (OSError, shutil.Error) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise RecordError(f"cannot copy the snapshot {self.source}: {error}") from error
        return self._record(self.directory)

    def _record(self, directory: Path) -> dict[str, Any]:
        diff = str(_diff_of(directory)) if self.record.get("diff") else None
        paths = {"directory": str(directory), "manifest": str(directory / MANIFEST), "diff": diff}
        return {**self.record, **paths}

    def _altered(self) -> Iterator[str]:
        roots, entries = self.manifest()
        for root, name, mode, sha256 in entries:
            stored = self.source / stored_name(roots, root, name)
            try:
                found = read_content(str(stored))
            except (FileNotFoundError, NotADirectoryError, Vanished):
                yield f"{name} (gone)"
                continue
            except (OSError, LauncherError) as error:
                yield f"{name} ({error})"
                continue
            if (found.mode, found.sha256) != (mode, sha256):
                yield f"{name} (altered)"

    def manifest(self) -> tuple[list[str], list[tuple[int, str, str, str]]]:
        """Return the code roots, and of each file its root's number, name, mode and SHA-256.

        Raises:
            RecordError: they cannot be read.
        """
        path = self.source / MANIFEST
        try:
            roots, entries = manifest(read_json(path))
        except FileNotFoundError as error:
            raise RecordError(f"the snapshot {printable(str(self.source))} is gone") from error
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{path} cannot be read as the manifest of a snapshot: {error}"
            ) from error
        return roots, [(root, name, mode, sha) for root, name, mode, sha, *_ in entries]

    @property
    def files(self) -> set[Path]:
        """The files of the code, by their paths in the tree."""
        with suppress(RecordError):
            roots, entries = self.manifest()
            return {Path(roots[root], name) for root, name, _, _ in entries}
        return set()


def _diff_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.diff")


def stored_name(roots: Sequence[str], root: int, name: str) -> str:
    """Return where a snapshot keeps a file: below the number of its outermost code root."""
    path = f"{roots[root]}/{name}"
    tops = [each for each in roots if not any(each.startswith(f"{other}/") for other in roots)]
    top = next(each for each in tops if path.startswith(f"{each.rstrip(os.sep)}/"))
    return f"{roots.index(top)}/{path.removeprefix(top.rstrip(os.sep)).lstrip(os.sep)}"
