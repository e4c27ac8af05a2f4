"""Small recorded utterances, made here, for the tests of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut

from espnet3.data.manifests import utterance_cut

RATE_HZ = 8000


def noise(num_samples: int = 800, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, num_samples).astype(np.int16)


@pytest.fixture
def make_cut(tmp_path: Path) -> Callable[..., MonoCut]:
    """Return a function that records an utterance and gives its cut."""

    def make(
        utterance_id: str,
        *,
        text: str = "ONE TWO",
        num_samples: int = 800,
        rate_hz: int = RATE_HZ,
        samples: np.ndarray | None = None,
    ) -> MonoCut:
        path = tmp_path / f"{utterance_id}.wav"
        content = noise(num_samples) if samples is None else samples
        soundfile.write(path, content, rate_hz, subtype="FLOAT" if content.dtype == float else None)
        return utterance_cut(
            utterance_id,
            text=text,
            speaker="ann",
            audio=path,
            num_samples=len(content),
            sample_rate_hz=rate_hz,
        )

    return make
