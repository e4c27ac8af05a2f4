"""Global statistics of the features: what they are, and when they are made again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from espnet3.data import load_dataset
from espnet3.systems.asr.features import LogMel
from espnet3.systems.asr.training.collect_stats import FeatureStats
from espnet3.systems.asr.training_config import checked_training_config

from .conftest import MakeSystem


@pytest.mark.parametrize("mean_removal", [True, False])
def test_statistics_are_those_of_all_training_frames(
    make_system: MakeSystem, mean_removal: bool
) -> None:
    system = make_system(features__utterance_mean_removal=mean_removal)
    results = system.collect_stats()
    config = checked_training_config(system)
    stats = FeatureStats.load(Path(config.stats_dir))
    places = {"recipe_dir": Path(config.recipe_dir), "data_dir": Path(config.data_dir)}
    train = load_dataset({"data_src_args": {"split": "train"}}, **places)
    log_mel = LogMel(config.features)
    utterances = [log_mel(cut.load_audio()[0]) for cut in train.cuts()]
    if mean_removal:
        utterances = [features - features.mean(axis=0) for features in utterances]
    frames = np.concatenate(utterances)
    assert results == {"utterances": 14, "frames": len(frames)}
    np.testing.assert_allclose(stats.mean, frames.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(stats.std, frames.std(axis=0), rtol=1e-4)


def test_kept_when_unchanged_and_made_again_for_other_features(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make_system().collect_stats()
    make_system(model__dim=32).collect_stats()
    assert "Kept: the feature statistics" in caplog.text
    system = make_system(features__num_mel_bins=24)
    system.collect_stats()
    assert "features.num_mel_bins: 20 -> 24" in caplog.text
    assert len(FeatureStats.load(Path(system.training_config.stats_dir)).mean) == 24


def test_made_again_for_other_audio_of_the_same_length(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    system = make_system()
    system.collect_stats()
    path = Path(system.training_config.data_dir, "train-0.wav")
    content = bytearray(path.read_bytes())
    content[-1000:] = np.random.default_rng(0).bytes(1000)
    path.write_bytes(content)
    make_system().collect_stats()
    assert "train: " in caplog.text
    assert "Kept: the feature statistics" not in caplog.text
