"""Log-mel features against a plain reading of Kaldi's definition."""

from __future__ import annotations

import numpy as np
import pytest

from espnet3.systems.asr.features import LogMel
from espnet3.systems.asr.training_config import FeaturesConfig


def reference_log_mel(samples: np.ndarray, rate_hz: int, bins: int) -> np.ndarray:
    """Compute Kaldi's fbank with its defaults (no dither, centred frames) step by step."""
    window, shift, size = rate_hz // 40, rate_hz // 100, 1 << (rate_hz // 40 - 1).bit_length()
    scaled = samples.astype(np.float64) * 32768
    frames = (len(scaled) + shift // 2) // shift
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))) ** 0.85
    edges = np.linspace(_mel(20.0), _mel(rate_hz / 2), bins + 2)
    centres = _mel(np.arange(size // 2) * rate_hz / size)
    rising = (centres - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - centres) / np.diff(edges)[1:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling))
    result = []
    for index in range(frames):
        start = index * shift + shift // 2 - window // 2
        place = np.arange(start, start + window)
        place = np.where(place < 0, -place - 1, place)
        place = np.where(place >= len(scaled), 2 * len(scaled) - 1 - place, place)
        frame = scaled[place] - scaled[place].mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * povey, size))[:-1] ** 2
        result.append(np.log(np.maximum(weights @ power, np.finfo(np.float32).eps)))
    return np.array(result)


def _mel(frequency_hz: float | np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + np.asarray(frequency_hz) / 700.0)


@pytest.mark.parametrize(("rate_hz", "bins"), [(8000, 40), (16000, 80)])
def test_equals_kaldis_definition(rate_hz: int, bins: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, rate_hz // 3 + 17).astype(np.float32)
    log_mel = LogMel(FeaturesConfig(sample_rate_hz=rate_hz, num_mel_bins=bins))
    features = log_mel(samples)
    expected = reference_log_mel(samples, rate_hz, bins)
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, atol=2e-2)


def test_quiet_speech_stays_above_the_log_floor() -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, 4000).astype(np.float32)
    features = LogMel(FeaturesConfig(sample_rate_hz=8000, num_mel_bins=40))(noise)
    assert features.min() > np.log(np.finfo(np.float32).eps) + 5


def test_too_few_samples_give_no_frame() -> None:
    features = LogMel(FeaturesConfig(sample_rate_hz=8000, num_mel_bins=40))(np.zeros(3))
    assert features.shape == (0, 40)
