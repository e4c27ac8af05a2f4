"""A builder whose source is pinned by its content: the bookkeeping that every recipe needs.

A folder ``data_dir/source`` holds the verified source, ``data_dir/utterances`` what is made of
it. Both appear whole or not at all, and each has a marker with what it was made from.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from espnet3.data.archives import content_sha256
from espnet3.data.builder import DatasetBuilder
from espnet3.data.checks import check_cuts
from espnet3.data.manifests import SUFFIX, load_cuts
from espnet3.utils.errors import ConfigError, DataError, storage_errors
from espnet3.utils.files import atomic_directory
from espnet3.utils.reuse import Reuse, is_kept

logger = logging.getLogger(__name__)


class PinnedSourceBuilder(DatasetBuilder):
    """Prepares a source of known content and builds utterances from it.

    The source is what ``create_dataset.source`` in YAML names (counted from the recipe's folder),
    else the environment variable :attr:`source_variable`, else it is fetched from where it is
    published. Whichever way it came, its content has to have the pinned SHA-256.
    """

    source_sha256: ClassVar[str]
    source_variable: ClassVar[str]
    #: Raise it when :meth:`make_utterances` makes something else of the same source.
    format_version: ClassVar[int] = 1

    @abstractmethod
    def fetch(self, folder: Path, *, advice: str) -> Path:
        """Fetch the published source into ``folder``; return the file or folder got."""

    @abstractmethod
    def place(self, source: Path, folder: Path) -> list[Path]:
        """Put what is needed of ``source``, a file or a folder, into ``folder``.

        Returns:
            the files below ``folder`` over which the pinned SHA-256 is taken.
        """

    @abstractmethod
    def make_utterances(self, source: Path, folder: Path) -> None:
        """Write audio and manifests, made from ``source``, into ``folder``."""

    def is_source_prepared(
        self, *, recipe_dir: Path, data_dir: Path, source: str | None = None
    ) -> bool:
        """Return whether the verified source is in place, and is the one that is named."""
        reasons = self._reasons_to_prepare(data_dir, self._given_source(source, recipe_dir))
        return is_kept(reasons, "source", data_dir / "source")

    def prepare_source(
        self, *, recipe_dir: Path, data_dir: Path, source: str | None = None
    ) -> None:
        """Take the named source, or fetch the published one, verify it and put it in place.

        Raises:
            DataError: when it is missing, broken, or not the one that is pinned.
            StorageError: when the disk is full or ``data_dir`` cannot be written.
        """
        given = self._given_source(source, recipe_dir)
        placed, named = self._placed(data_dir), self._named(data_dir, given)
        advice = (
            f"get it on a machine with network and name its path: create_dataset.source in the "
            f"training config, or the environment variable {self.source_variable}."
        )
        with _one_at_a_time(data_dir):
            if not self._reasons_to_prepare(data_dir, given):
                return  # another process was faster
            with atomic_directory(data_dir / "source") as folder:
                with tempfile.TemporaryDirectory(dir=data_dir, prefix=".fetch.") as scratch:
                    origin = given or self.fetch(Path(scratch), advice=advice)
                    files = self.place(origin, folder)
                found = content_sha256(folder, files)
                if found != self.source_sha256:
                    raise DataError(
                        f"{given or 'What was fetched'} is not the pinned source: the SHA-256 of "
                        f"its content is {found}, {self.source_sha256} is expected. Get it anew "
                        "from where it is published; the README of the recipe says where."
                    )
                placed.forget()
            placed.mark_done(_files(data_dir / "source"))
            if given is not None:
                named.mark_done([])
        logger.info("Source verified (SHA-256 %s…), placed in %s", found[:12], data_dir / "source")

    def is_built(self, *, recipe_dir: Path, data_dir: Path, source: str | None = None) -> bool:
        """Return whether the utterances are whole and made from this source by this code."""
        return is_kept(
            self._built(data_dir).reasons_to_redo(), "utterances", data_dir / "utterances"
        )

    def build(self, *, recipe_dir: Path, data_dir: Path, source: str | None = None) -> None:
        """Make the utterances and check every sample of them.

        Raises:
            DataError: for audio or transcripts that cannot be used.
            StorageError: when the disk is full or ``data_dir`` cannot be written.
        """
        built = self._built(data_dir)
        with _one_at_a_time(data_dir):
            if not built.reasons_to_redo():
                return  # another process was faster
            built.forget()
            with atomic_directory(data_dir / "utterances") as folder:
                self.make_utterances(data_dir / "source", folder)
            for manifest in sorted((data_dir / "utterances").glob(f"*{SUFFIX}")):
                cuts = load_cuts(manifest, data_dir=data_dir)
                check_cuts(cuts, name=manifest.name.removesuffix(SUFFIX), audio="samples")
            built.mark_done(_files(data_dir / "utterances"))

    def _reasons_to_prepare(self, data_dir: Path, given: Path | None) -> list[str]:
        reasons = self._placed(data_dir).reasons_to_redo()
        if given is not None and not reasons:
            reasons = self._named(data_dir, given).reasons_to_redo()
        return reasons

    def _placed(self, data_dir: Path) -> Reuse:
        return Reuse(data_dir / ".source.done.json", {"sha256": self.source_sha256})

    def _named(self, data_dir: Path, given: Path | None) -> Reuse:
        # Apart from the record of the placed source, so that verified data stays of use when
        # the archive it came from is no longer named or no longer there.
        return Reuse(data_dir / ".source.named.json", _identity(given) if given else {})

    def _built(self, data_dir: Path) -> Reuse:
        key = {"source_sha256": self.source_sha256, "format": self.format_version}
        return Reuse(data_dir / ".utterances.done.json", key)

    def _given_source(self, source: str | None, recipe_dir: Path) -> Path | None:
        if source is not None and not isinstance(source, str | os.PathLike):
            raise ConfigError(f"create_dataset.source is {source!r}; a path is needed.")
        named_by, base = "create_dataset.source", recipe_dir
        if not source:
            named_by, base = f"the environment variable {self.source_variable}", Path.cwd()
            source = os.environ.get(self.source_variable)
        if not source:
            return None
        path = base / Path(source).expanduser()
        if not path.exists():
            raise DataError(
                f"There is no {path}, which {named_by} names. Mend the path, or unset it to "
                "fetch the published source."
            )
        return path


@contextmanager
def _one_at_a_time(data_dir: Path) -> Iterator[None]:
    """Keep two processes from making the same data side by side, and clear up after killed ones."""
    with storage_errors(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data_dir / ".create_dataset.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("Waiting for another process that makes the data in %s", data_dir)
            lock.acquire()
    try:
        for pattern in (".fetch.*", ".*.partial", ".*.retired"):
            for left in data_dir.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _identity(path: Path) -> Mapping[str, Any]:
    """Return what changes when a source does, without reading it all: sizes and times."""
    if path.is_file():
        status = path.stat()
        return {"path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    listing = hashlib.sha256()
    for each in _files(path):
        status = each.stat()
        listing.update(f"{each.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return {"path": str(path), "files": listing.hexdigest()}
