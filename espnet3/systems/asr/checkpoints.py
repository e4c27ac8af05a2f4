"""The checkpoints of a training run: which there are, which is best, and loading one to decode.

``exp_dir/checkpoints`` holds ``step00001200.ckpt`` files and ``index.json``, which lists them with
their size and validation figures. Nothing here needs Lightning.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.errors import CheckpointError
from espnet3.utils.files import write_atomically

if TYPE_CHECKING:
    from espnet3.systems.asr.features import LogMel
    from espnet3.systems.asr.model import CTCModel
    from espnet3.systems.asr.tokenizer import Tokenizer
    from espnet3.systems.asr.training_config import TrainingConfig

logger = logging.getLogger(__name__)

_FOLDER = "checkpoints"
_INDEX = "index.json"
_NAME = re.compile(r"step(\d{8,})\.ckpt")


@dataclass
class Entry:
    """One checkpoint as the index lists it; ``metrics`` is empty when it was not validated."""

    step: int
    size_bytes: int
    metrics: dict[str, float] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of one run; the best by ``monitor`` and the newest two stay."""

    def __init__(self, exp_dir: Path, *, monitor: str = "valid_WER", keep_best: int = 1) -> None:
        self.path = Path(exp_dir) / _FOLDER
        self.monitor = monitor
        self.keep_best = keep_best

    def file(self, step: int) -> Path:
        """Return the file of the checkpoint after ``step`` optimizer steps."""
        return self.path / f"step{step:08d}.ckpt"

    def entries(self) -> list[Entry]:
        """Return the listed checkpoints, oldest first."""
        try:
            content = json.loads((self.path / _INDEX).read_text(encoding="utf-8"))
            entries = [
                Entry(int(each["step"]), int(each["size_bytes"]), dict(each["metrics"]))
                for each in content["checkpoints"]
            ]
        except (OSError, ValueError, KeyError, TypeError):
            # A lost index costs the validation figures, never the checkpoints.
            entries = [
                Entry(int(match[1]), path.stat().st_size)
                for path in self.path.glob("step*.ckpt")
                if (match := _NAME.fullmatch(path.name))
            ]
        return sorted(entries, key=lambda entry: entry.step)

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """List the checkpoint just written and remove, of those listed, what need not stay."""
        entries = [entry for entry in self.entries() if entry.step != step]
        entries.append(Entry(step, self.file(step).stat().st_size, metrics))
        newest = [entry.step for entry in entries[-2:]]
        best = [entry.step for entry in self.by_merit(entries)[: self.keep_best]]
        kept = [entry for entry in entries if entry.step in newest or entry.step in best]
        self._write_index(kept)
        for entry in entries:
            if entry not in kept:
                self.file(entry.step).unlink(missing_ok=True)

    def by_merit(self, entries: list[Entry]) -> list[Entry]:
        """Return the validated entries, best first; of equals the one trained longer."""
        validated = [entry for entry in entries if self.monitor in entry.metrics]
        return sorted(
            validated,
            key=lambda entry: (
                entry.metrics[self.monitor],
                entry.metrics.get("valid_loss", 0.0),
                -entry.step,
            ),
        )

    def newest_whole(self) -> Entry | None:
        """Return the newest checkpoint that can be read, warning of each that cannot."""
        return next(self._whole(list(reversed(self.entries()))), None)

    def best_whole(self) -> Entry | None:
        """Return the best checkpoint that can be read (the newest if none was validated)."""
        entries = self.entries()
        ranked = self.by_merit(entries)
        others = [entry for entry in reversed(entries) if entry not in ranked]
        return next(self._whole(ranked + others), None)

    def _whole(self, entries: list[Entry]) -> Iterator[Entry]:
        for entry in entries:
            path = self.file(entry.step)
            damage = _damage(path, entry.size_bytes)
            if damage is None:
                yield entry
            else:
                logger.warning("Falling back to the checkpoint before: %s %s", path, damage)

    def _write_index(self, entries: list[Entry]) -> None:
        listed = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.step)]
        content = {"monitor": self.monitor, "checkpoints": listed}
        write_atomically(self.path / _INDEX, json.dumps(content, indent=1) + "\n")


def _damage(path: Path, size_bytes: int) -> str | None:
    """Return what is wrong with a checkpoint file; ``None`` when it is whole.

    torch writes a zip archive: a table of contents last, and a checksum for every member.
    """
    if not path.exists():
        return "is missing"
    found = path.stat().st_size
    if found != size_bytes:
        return f"is truncated ({found} of {size_bytes} bytes)"
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
        return "is damaged"  # the kinds of error that zipfile has for contents that make no sense
    return None if member is None else f"is damaged (in {member})"


def training_key(path: Path) -> str | None:
    """Return the hash of what the training of a whole checkpoint depended on, if it says so."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    key: str | None = content["recogniser"].get("training_key")
    return key


def best_checkpoint(exp_dir: Path) -> Path:
    """Return the checkpoint of ``exp_dir`` with the best validation figure.

    Raises:
        CheckpointError: there is none that can be read.
    """
    folder = CheckpointFolder(exp_dir)
    try:
        index = json.loads((folder.path / _INDEX).read_text(encoding="utf-8"))
        folder.monitor = str(index["monitor"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    best = folder.best_whole()
    if best is None:
        raise CheckpointError(
            f"There is no readable checkpoint in {folder.path}. Run the stage train first."
        )
    return folder.file(best.step)


@dataclass
class Recogniser:
    """All that recognition needs: front end, network and tokens."""

    model: CTCModel
    log_mel: LogMel
    tokenizer: Tokenizer
    config: TrainingConfig


def load_recogniser(checkpoint: Path, device: str = "cpu") -> Recogniser:
    """Return the recogniser kept in ``checkpoint``, ready to decode on ``device``.

    The averaged weights are taken where training averaged them.

    Raises:
        CheckpointError: the file cannot be read, or is no checkpoint of this system.
    """
    import torch
    from omegaconf import OmegaConf

    from espnet3.systems.asr.features import LogMel
    from espnet3.systems.asr.model import build_model
    from espnet3.systems.asr.tokenizer import Tokenizer
    from espnet3.systems.asr.training_config import TrainingConfig

    try:
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        recogniser, weights = content["recogniser"], content["state_dict"]
    except FileNotFoundError as error:
        raise CheckpointError(
            f"Checkpoint {checkpoint} does not exist. Run the stage train first."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint} cannot be read as a checkpoint ({error}). Remove it and run the stage"
            " train again: it goes on from the checkpoint before."
        ) from error
    typed = OmegaConf.merge(OmegaConf.structured(TrainingConfig), recogniser["config"])
    config = OmegaConf.to_object(typed)
    assert isinstance(config, TrainingConfig)
    tokenizer = Tokenizer(recogniser["tokenizer"])
    model = build_model(config, tokenizer.vocab_size)
    model.load_state_dict(recognition_weights(weights))
    return Recogniser(model.to(device).eval(), LogMel(config.features), tokenizer, config)


def recognition_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Return the model's weights of a training state: the averaged ones if there are any."""
    averaged, plain = "averaged.module.", "model."
    prefix = averaged if any(name.startswith(averaged) for name in state) else plain
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
