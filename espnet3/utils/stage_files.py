"""The files of one stage run: ``<stage>.log`` and, beside it, ``<stage>.metadata.json``.

The pair without a number is always the latest run's. When a stage starts, an earlier pair is
renamed to the first free number (``train1.log`` and ``train1.metadata.json``). Several
processes may do that at the same moment, on one node or on many: each change of names happens
under an advisory lock in the log folder, and a run that ends later finds its own pair again by
the identity of the log that it holds open, whatever it is called by then.

A launcher may keep what a stage prints in ``<stage>.out`` beside them. It takes the number of its
run's log. The one of this run, which is there before the log, is told by its inode in
``LAUNCHER_OUTPUT_INODE``.

The launcher's job may also have begun the metadata, with what it knows of itself under ``job``.
That is this run's if it names this run's output (``job.output_inode``): it is then written over,
all but ``job``, which the job goes on to write and which is read anew each time.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from espnet3.utils.errors import storage_errors
from espnet3.utils.files import write_atomically

_METADATA_SUFFIX = ".metadata.json"
_OUTPUT_SUFFIX = ".out"
_OUTPUT_INODE = "LAUNCHER_OUTPUT_INODE"


class StageFiles:
    """The open log of a running stage and the metadata that belongs to it.

    Args:
        log_dir: folder that receives the files; made when it is not there.
        stem: the stage's name, with a rank where each rank keeps a log (``train_rank1``).
        metadata: what is known at the start; ``None`` for a log without metadata.
        suffix: of the log file.

    Raises:
        StorageError: when the folder cannot be written.
    """

    def __init__(
        self,
        log_dir: Path,
        stem: str,
        metadata: Mapping[str, Any] | None = None,
        suffix: str = ".log",
    ) -> None:
        self.log_dir = log_dir
        self.stem = stem
        self.suffix = suffix
        self._output_inode = os.environ.get(_OUTPUT_INODE)
        self._job: dict[str, Any] = {}
        with storage_errors(log_dir):
            log_dir.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._rotate()
                self.stream: TextIO = self.log_path.open("x", encoding="utf-8")
                if metadata is not None:
                    self._write(self.stem, metadata)

    @property
    def log_path(self) -> Path:
        """Where the latest run's log is found; this run's, until a later one starts."""
        return self.log_dir / f"{self.stem}{self.suffix}"

    def write_metadata(self, metadata: Mapping[str, Any]) -> Path:
        """Replace this run's metadata, under whatever name its log has by now."""
        with storage_errors(self.log_dir), self._lock():
            return self._write(self._current_stem(), metadata)

    def close(self) -> None:
        """Close the log. The files keep their names."""
        self.stream.close()

    def _write(self, stem: str, metadata: Mapping[str, Any]) -> Path:
        path = self.log_dir / f"{stem}{_METADATA_SUFFIX}"
        self._job = self._job_in(path) or self._job
        job = {**metadata.get("job", {}), **self._job}
        content = {**metadata, **({"job": job} if job else {})}
        write_atomically(path, json.dumps(content, indent=2, default=str) + "\n")
        return path

    def _job_in(self, path: Path) -> dict[str, Any]:
        """Return what metadata says of this run's job; nothing if it is another run's."""
        try:
            job = json.loads(path.read_text(encoding="utf-8"))["job"]
            own = self._output_inode is not None and str(job["output_inode"]) == self._output_inode
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return job if own else {}

    def _rotate(self) -> None:
        own_output = self._own_output()
        own = [] if own_output is None else [own_output]
        if own_output is not None:
            beside = self.log_dir / f"{own_output.stem}{_METADATA_SUFFIX}"
            self._job = self._job_in(beside)
            # With a log it tells of a stage that ran earlier in the same job.
            if self._job and not (self.log_dir / f"{own_output.stem}{self.suffix}").exists():
                own.append(beside)
        output = self.log_dir / f"{self.stem}{_OUTPUT_SUFFIX}"
        metadata = self.log_dir / f"{self.stem}{_METADATA_SUFFIX}"
        files = dict.fromkeys([self.log_path, metadata, output])
        earlier = [path for path in files if path not in own and path.exists()]
        if earlier:
            number = 1
            while any(self._numbered(path, number).exists() for path in files):
                number += 1
            for path in earlier:
                path.rename(self._numbered(path, number))
        # They are under a number if another run started in between.
        for path, name in zip(own, (output, metadata), strict=False):
            path.rename(name)

    def _own_output(self) -> Path | None:
        return self._find(_OUTPUT_SUFFIX, lambda found: str(found.st_ino) == self._output_inode)

    def _numbered(self, path: Path, number: int) -> Path:
        return path.with_name(f"{self.stem}{number}{path.name[len(self.stem) :]}")

    def _current_stem(self) -> str:
        own = os.fstat(self.stream.fileno())
        log = self._find(
            self.suffix, lambda found: (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)
        )
        # If somebody deleted this run's log: keep the metadata apart.
        return f"{self.stem}.pid{os.getpid()}" if log is None else log.stem

    def _find(self, suffix: str, is_own: Callable[[os.stat_result], bool]) -> Path | None:
        """Return the file that is this run's own, with whatever number, if there is one."""
        name = re.compile(rf"{re.escape(self.stem)}\d*{re.escape(suffix)}")
        for path in self.log_dir.glob(f"*{glob.escape(suffix)}"):
            with suppress(FileNotFoundError):
                if name.fullmatch(path.name) and is_own(path.stat()):
                    return path
        return None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.log_dir / f".{self.stem}.lock").open("a") as lock:
            # A file system without locks (ENOLCK) gets the renames alone.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
