"""Which run the experiment folder holds: to keep, to go on with, or to move aside."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet3.systems.asr.checkpoints import CheckpointFolder
from espnet3.utils.errors import storage_errors
from espnet3.utils.files import write_atomically
from espnet3.utils.reuse import Reuse

logger = logging.getLogger(__name__)

_PREVIOUS = "previous"
_RESULTS = "results.json"
_OF_A_RUN = ("checkpoints", "tensorboard", "metrics")


class RunFolder:
    """The experiment folder of one training run, known by the key of all it depends on.

    ``checkpoints``, ``tensorboard`` and ``metrics`` belong to one run. When the key changes they
    move to the single folder ``previous``, and what that held before is removed.
    """

    def __init__(
        self, exp_dir: Path, key: Mapping[str, Any], checkpoints: CheckpointFolder
    ) -> None:
        self.exp_dir = exp_dir
        self.checkpoints = checkpoints
        self._begun = Reuse(checkpoints.path / ".run.json", key)
        self._finished = Reuse(checkpoints.path / ".train.done.json", key)

    def finished_results(self) -> dict[str, Any] | None:
        """Return the figures of the finished run with this key; ``None`` if it is not finished."""
        if self._finished.reasons_to_redo():
            return None
        content = json.loads((self.checkpoints.path / _RESULTS).read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    def prepare(self) -> None:
        """Make the folder ready for a run with this key, moving another run aside.

        Raises:
            StorageError: the folder cannot be written.
        """
        with storage_errors(self.exp_dir):
            self.exp_dir.mkdir(parents=True, exist_ok=True)
            reasons = self._begun.reasons_to_redo()
            if reasons and any((self.exp_dir / name).exists() for name in _OF_A_RUN):
                self._move_aside(reasons)
            self.checkpoints.path.mkdir(exist_ok=True)
            for partial in self.checkpoints.path.glob(".*.partial.*"):
                partial.unlink(missing_ok=True)  # of a process killed while it wrote
            self._begun.mark_done([])
            self._finished.forget()

    def newest_checkpoint(self) -> Path | None:
        """Return the checkpoint to go on from; ``None`` begins anew."""
        entry = self.checkpoints.newest_whole()
        return None if entry is None else self.checkpoints.file(entry.step)

    def mark_finished(self, results: Mapping[str, Any]) -> None:
        """Record the run as finished, with its figures."""
        results_file = self.checkpoints.path / _RESULTS
        write_atomically(results_file, json.dumps(results, indent=1) + "\n")
        files = [self.checkpoints.file(entry.step) for entry in self.checkpoints.entries()]
        self._finished.mark_done([results_file, *files])

    def _move_aside(self, reasons: list[str]) -> None:
        previous = self.exp_dir / _PREVIOUS
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir()
        for name in _OF_A_RUN:
            if (self.exp_dir / name).exists():
                (self.exp_dir / name).rename(previous / name)
        logger.info(
            "Training begins from scratch (%s); the earlier run was moved to %s",
            "; ".join(reasons),
            previous,
        )
