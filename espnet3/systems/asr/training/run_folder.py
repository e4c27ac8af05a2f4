"""Which run the experiment folder holds: the one that is asked for, and beside it earlier ones."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet3.systems.asr.checkpoints import CheckpointFolder, training_key
from espnet3.utils.errors import CheckpointError, storage_errors
from espnet3.utils.files import write_atomically
from espnet3.utils.reuse import Reuse

logger = logging.getLogger(__name__)

_BEGUN = ".run.json"
_RESULTS = "results.json"
_ASIDE = re.compile(r"previous(\d+)")
# In the order of moving: a run is where its checkpoints are, should a move be cut short.
_OF_A_RUN = ("tensorboard", "metrics", "checkpoints")


class RunFolder:
    """The experiment folder of one training run, known by the key of all it depends on.

    ``checkpoints``, ``tensorboard`` and ``metrics`` belong to one run. When the key changes they
    move to ``previous1``, ``previous2`` and so on, the highest number the latest, and come back
    when their key is asked for again. Nothing that holds a checkpoint is ever removed.
    """

    def __init__(
        self, exp_dir: Path, key: Mapping[str, Any], checkpoints: CheckpointFolder
    ) -> None:
        self.exp_dir = exp_dir
        self.checkpoints = checkpoints
        self._key = key
        self._begun = Reuse(checkpoints.path / _BEGUN, key)
        canonical = json.dumps(self._begun.key, sort_keys=True)
        self.key_sha256 = hashlib.sha256(canonical.encode()).hexdigest()
        self._finished = Reuse(checkpoints.path / ".train.done.json", key)

    def finished_results(self) -> dict[str, Any] | None:
        """Return the figures of the finished run with this key; ``None`` if it is not finished."""
        if self._finished.reasons_to_redo():
            return None
        content = json.loads((self.checkpoints.path / _RESULTS).read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    def prepare(self) -> None:
        """Make the folder hold the run with this key: as it is, brought back, or to be begun.

        Raises:
            StorageError: the folder cannot be written.
        """
        with storage_errors(self.exp_dir):
            self.exp_dir.mkdir(parents=True, exist_ok=True)
            if reasons := self._begun.reasons_to_redo():
                self._make_room(reasons)
                self._bring_back()
            self.checkpoints.path.mkdir(exist_ok=True)
            for partial in self.checkpoints.path.glob(".*.partial.*"):
                partial.unlink(missing_ok=True)  # of a process killed while it wrote
            self._begun.mark_done([])
            if self.finished_results() is None:
                self._finished.forget()

    def newest_checkpoint(self) -> Path | None:
        """Return the checkpoint to go on from; ``None`` begins anew.

        Raises:
            CheckpointError: it is of another training.
        """
        entry = self.checkpoints.newest_whole()
        if entry is None:
            return None
        path = self.checkpoints.file(entry.step)
        if training_key(path) not in (self.key_sha256, None):
            raise CheckpointError(
                f"{path} was written by a training with other settings or data than this folder's. "
                "Move it away, or give this training another exp_tag or exp_dir."
            )
        return path

    def mark_finished(self, results: Mapping[str, Any]) -> None:
        """Record the run as finished, with its figures."""
        results_file = self.checkpoints.path / _RESULTS
        write_atomically(results_file, json.dumps(results, indent=1) + "\n")
        files = [self.checkpoints.file(entry.step) for entry in self.checkpoints.entries()]
        self._finished.mark_done([results_file, *files])

    def _make_room(self, reasons: list[str]) -> None:
        """Move the run that is in place aside; one without any checkpoint is removed."""
        if not any((self.exp_dir / name).exists() for name in _OF_A_RUN):
            return
        asked = f"Another training is asked for ({'; '.join(reasons)})"
        if any(self.checkpoints.path.glob("step*.ckpt")):
            number = max(self._aside(), default=0) + 1
            aside = self.exp_dir / f"previous{number}"
            _move(self.exp_dir, aside)
            logger.info("%s; the one in place is kept as %s", asked, aside)
        else:
            for name in _OF_A_RUN:
                shutil.rmtree(self.exp_dir / name, ignore_errors=True)
            logger.info("%s; the one in place had no checkpoint yet and is removed", asked)

    def _bring_back(self) -> None:
        """Put the latest earlier run with this key in place again, if there is one."""
        for _, aside in sorted(self._aside().items(), reverse=True):
            record = Reuse(aside / self.checkpoints.path.name / _BEGUN, self._key)
            if not record.reasons_to_redo():
                _move(aside, self.exp_dir)
                aside.rmdir()
                logger.info("An earlier training with these settings is brought back: %s", aside)
                return

    def _aside(self) -> dict[int, Path]:
        """Return the folders of earlier runs by their number."""
        return {
            int(match[1]): path
            for path in self.exp_dir.iterdir()
            if (match := _ASIDE.fullmatch(path.name))
        }


def _move(origin: Path, destination: Path) -> None:
    destination.mkdir(exist_ok=True)
    for name in _OF_A_RUN:
        if (origin / name).exists():
            (origin / name).rename(destination / name)
