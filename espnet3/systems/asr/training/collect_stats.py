"""The stage ``collect_stats``: mean and deviation of the training features, bin by bin."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet3.systems.asr.data.datasets import load_split
from espnet3.systems.asr.data.feature_store import FeatureStore
from espnet3.systems.asr.features import LogMel
from espnet3.systems.asr.training_config import TrainingConfig, checked_training_config
from espnet3.utils.errors import DataError
from espnet3.utils.files import write_atomically
from espnet3.utils.reuse import Kept, Reuse

if TYPE_CHECKING:
    from espnet3.systems.asr.system import ASRSystem

logger = logging.getLogger(__name__)

# A bin that never varies (all silence) would divide by zero.
_SMALLEST_STD = 1e-3


@dataclass
class FeatureStats:
    """Global statistics: ``mean`` and ``std`` hold one figure per mel bin."""

    utterances: int
    frames: int
    mean: list[float]
    std: list[float]

    @classmethod
    def load(cls, stats_dir: Path) -> FeatureStats:
        """Return the statistics that ``collect_stats`` left in ``stats_dir``."""
        return cls(**json.loads(stats_file(stats_dir).read_text(encoding="utf-8")))


def stats_file(stats_dir: Path) -> Path:
    """Return the file that holds the statistics."""
    return Path(stats_dir) / "feature_stats.json"


def run_collect_stats(system: ASRSystem) -> dict[str, Any]:
    """Compute the statistics of the training split into ``stats_dir``."""
    config = checked_training_config(system)
    source = load_split(config, "train", create=system.create_dataset)
    stats_dir = Path(config.stats_dir)
    key = {"features": asdict(config.features), "train": source.digest()}
    reuse = Reuse(stats_dir / ".collect_stats.done.json", key)
    reasons = reuse.reasons_to_redo()
    if not reasons:
        stats = FeatureStats.load(stats_dir)
        logger.info("Kept: the feature statistics, settings and data unchanged: %s", stats_dir)
        return Kept(utterances=stats.utterances, frames=stats.frames)
    logger.info("Collecting feature statistics: %s", "; ".join(reasons))
    reuse.forget()
    stats = collect(config, list(source.cuts))
    write_atomically(stats_file(stats_dir), json.dumps(asdict(stats), indent=1) + "\n")
    reuse.mark_done([stats_file(stats_dir)])
    logger.info(
        "%d utterances, %d frames: %s", stats.utterances, stats.frames, stats_file(stats_dir)
    )
    return {"utterances": stats.utterances, "frames": stats.frames}


def collect(config: TrainingConfig, cuts: list[Any]) -> FeatureStats:
    """Return the statistics of ``cuts``, each utterance's mean removed first if so configured.

    Raises:
        DataError: the audio gives no frames, or cannot be read.
    """
    store = FeatureStore(LogMel(config.features), cache_mb=0)
    bins = config.features.num_mel_bins
    total, squares, frames = np.zeros(bins), np.zeros(bins), 0
    for cut in cuts:
        features = store.features(cut).astype(np.float64)
        if config.features.utterance_mean_removal and len(features):
            features -= features.mean(axis=0)
        total += features.sum(axis=0)
        squares += np.square(features).sum(axis=0)
        frames += len(features)
    if not frames:
        raise DataError("The training utterances are too short: they give no frame of features.")
    mean = total / frames
    std = np.sqrt(np.maximum(squares / frames - np.square(mean), _SMALLEST_STD**2))
    return FeatureStats(len(cuts), frames, mean.tolist(), std.tolist())
