"""The ASR system: each stage is one function of a module beside this one.

The modules are imported when their stage runs: planning a run needs neither torch nor lhotse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espnet3.systems.base.system import BaseSystem
from espnet3.utils.errors import ConfigError


class ASRSystem(BaseSystem):
    """Speech recognition from data to a packed model.

    Raises:
        ConfigError: a config holds a key that is unknown, or of the wrong type, or out of range:
            before any stage is started, or any job queued.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        if self.training_config is not None:
            from espnet3.systems.asr.training_config import check_training_config

            self._check_references("training", check_training_config(self.training_config))
        from espnet3.systems.asr import inference_config as others

        if self.inference_config is not None:
            self._check_references("inference", others.checked_inference_config(self))
        if self.metrics_config is not None:
            others.checked_metrics_config(self)
        others.checked_publication_config(self)

    def _check_references(self, role: str, config: Any) -> None:
        from espnet3.data.reference import check_references

        for split in ("train", "valid", "test"):
            entries = getattr(config.dataset, split, None)
            if entries and config.recipe_dir:
                section = f"{role}_config: dataset.{split}"
                check_references(entries, recipe_dir=Path(config.recipe_dir), section=section)

    def create_dataset(self) -> dict[str, Any]:
        """Fetch and prepare the data; see :mod:`espnet3.data`."""
        from espnet3.data import create_dataset

        if self.training_config is None:
            raise ConfigError("create_dataset needs a training config. Use --training_config.")
        return create_dataset(self.training_config)

    def train_tokenizer(self) -> dict[str, Any]:
        """Train the tokenizer on the training transcripts."""
        from espnet3.systems.asr.tokenizer import run_train_tokenizer

        return run_train_tokenizer(self)

    def collect_stats(self) -> dict[str, Any]:
        """Compute the global statistics of the training features."""
        from espnet3.systems.asr.training import run_collect_stats

        return run_collect_stats(self)

    def train(self) -> dict[str, Any]:
        """Train the recogniser, or go on where a signal ended it."""
        from espnet3.systems.asr.training import run_train

        return run_train(self)

    def infer(self) -> dict[str, Any]:
        """Decode the test sets."""
        from espnet3.systems.asr.inference import run_infer

        return run_infer(self)

    def measure(self) -> dict[str, Any]:
        """Score what ``infer`` wrote."""
        from espnet3.systems.asr.scoring import run_measure

        return run_measure(self)

    def pack_model(self) -> dict[str, Any]:
        """Pack what recognition needs into one file."""
        from espnet3.systems.asr.packing import run_pack_model

        return run_pack_model(self)
