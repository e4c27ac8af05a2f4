"""Features of cuts: joined, played faster, remembered within a bound, and read errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording

from espnet3.systems.asr.data.feature_store import FeatureStore
from espnet3.systems.asr.features import LogMel
from espnet3.systems.asr.training_config import FeaturesConfig
from espnet3.utils.errors import DataError

CONFIG = FeaturesConfig(sample_rate_hz=8000, num_mel_bins=20)


class Counting(LogMel):
    calls = 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        self.calls += 1
        return super().__call__(samples)


@pytest.fixture
def cuts(tmp_path: Path) -> list[MonoCut]:
    made = []
    for index, seconds in enumerate((0.5, 0.4, 0.3)):
        samples = np.random.default_rng(index).normal(0, 0.1, int(8000 * seconds))
        path = tmp_path / f"r{index}.wav"
        soundfile.write(path, samples, 8000, subtype="PCM_16")
        made.append(Recording.from_file(path).to_cut())
    return made


def test_joined_cuts_are_their_parts_and_nearly_the_whole(cuts: list[MonoCut]) -> None:
    log_mel = Counting(CONFIG)
    store = FeatureStore(log_mel, cache_mb=1)
    joined = cuts[0].append(cuts[1]).append(cuts[2])
    features = store.features(joined)
    parts = np.concatenate([store.features(cut) for cut in cuts])
    assert np.array_equal(features, parts)
    assert log_mel.calls == 3
    whole = LogMel(CONFIG)(joined.load_audio()[0])
    assert whole.shape == features.shape
    differing = np.abs(whole - features).max(axis=1) > 0.05
    assert differing.sum() <= 2 * 4  # frames at the two seams


def test_mixed_cuts_that_are_not_joined_end_to_end_are_computed_as_they_sound(
    cuts: list[MonoCut],
) -> None:
    store = FeatureStore(LogMel(CONFIG), cache_mb=1)
    overlaid = cuts[0].mix(cuts[1], snr=10)
    expected = LogMel(CONFIG)(overlaid.load_audio()[0])
    assert np.array_equal(store.features(overlaid), expected)


def test_speed_changes_length_and_is_remembered_apart(cuts: list[MonoCut]) -> None:
    log_mel = Counting(CONFIG)
    store = FeatureStore(log_mel, cache_mb=1)
    frames = [len(store.features(cuts[0], speed)) for speed in (0.8, 1.0, 1.25, 0.8)]
    assert frames == pytest.approx([62, 50, 40, 62], abs=1)
    assert log_mel.calls == 3


def test_a_part_of_a_recording_is_not_taken_for_the_whole(cuts: list[MonoCut]) -> None:
    store = FeatureStore(LogMel(CONFIG), cache_mb=1)
    halves = [cuts[0].truncate(duration=0.25), cuts[0].truncate(offset=0.25)]
    assert [len(store.features(cut)) for cut in (cuts[0], *halves)] == [50, 25, 25]
    assert not np.array_equal(store.features(halves[0]), store.features(halves[1]))


def test_memory_is_bounded_and_the_least_used_goes_first(cuts: list[MonoCut]) -> None:
    log_mel = Counting(CONFIG)
    store = FeatureStore(log_mel, cache_mb=1)
    store._free_bytes = 50 * 20 * 4 + 40 * 20 * 4  # room for the first two
    for cut in (cuts[0], cuts[1], cuts[0], cuts[2]):
        store.features(cut)
    assert log_mel.calls == 3
    store.features(cuts[0])
    assert log_mel.calls == 3
    store.features(cuts[1])
    assert log_mel.calls == 4
    nothing = FeatureStore(Counting(CONFIG), cache_mb=0)
    for _ in range(2):
        nothing.features(cuts[0])
    assert nothing.log_mel.calls == 2  # type: ignore[attr-defined]


def test_audio_that_cannot_be_read_names_the_cut(cuts: list[MonoCut]) -> None:
    store = FeatureStore(LogMel(CONFIG), cache_mb=1)
    Path(cuts[0].recording.sources[0].source).unlink()
    with pytest.raises(DataError, match="The audio of cut 'r0' cannot be read"):
        store.features(cuts[0])


def test_another_sampling_rate_is_refused(cuts: list[MonoCut]) -> None:
    store = FeatureStore(LogMel(FeaturesConfig(sample_rate_hz=16000)), cache_mb=1)
    with pytest.raises(
        DataError, match=r"sampled at 8000 Hz, but features.sample_rate_hz is 16000"
    ):
        store.features(cuts[0])
