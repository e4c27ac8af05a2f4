"""Features of cuts, computed from their audio and remembered within a bound of memory."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from lhotse.audio.backend import LibsndfileBackend, set_current_audio_backend
from lhotse.cut import Cut, MixedCut, MonoCut

from espnet3.systems.asr.features import LogMel
from espnet3.utils.errors import DataError

# What create_dataset checks recordings with. Left to choose (lhotse 1.33), lhotse looks for
# torchaudio anew at every read, which takes as long as reading.
set_current_audio_backend(LibsndfileBackend())


class FeatureStore:
    """Log-mel features of cuts; the most recently used ones stay in memory.

    The features of recordings joined end to end are the recordings' own features, joined: a
    corpus that joins its recordings anew each epoch computes each of them once. (Real features
    differ in the two or three frames at each seam; recognition does not notice.)

    Args:
        log_mel: the front end.
        cache_mb: bound of the memory, in megabytes of features; 0 remembers nothing.
    """

    def __init__(self, log_mel: LogMel, *, cache_mb: int) -> None:
        self.log_mel = log_mel
        self._free_bytes = cache_mb * 1_000_000
        self._cache: OrderedDict[tuple[object, ...], np.ndarray] = OrderedDict()

    def features(self, cut: Cut, speed: float = 1.0) -> np.ndarray:
        """Return (frames, bins) float32 of ``cut`` played ``speed`` times as fast.

        Raises:
            DataError: when the audio cannot be read or has another sampling rate.
        """
        if isinstance(cut, MixedCut):
            if not _is_joined(cut):
                return self._compute(cut, speed)
            return np.concatenate([self.features(track.cut, speed) for track in cut.tracks])
        key = _identity(cut, speed)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found
        computed = self._compute(cut, speed)
        self._remember(key, computed)
        return computed

    def _compute(self, cut: Cut, speed: float) -> np.ndarray:
        if cut.sampling_rate != self.log_mel.sample_rate_hz:
            raise DataError(
                f"Cut '{cut.id}' is sampled at {cut.sampling_rate} Hz, but features.sample_rate_hz"
                f" is {self.log_mel.sample_rate_hz}. Set it to the data's rate, or resample."
            )
        try:
            samples = (cut if speed == 1.0 else cut.perturb_speed(speed)).load_audio()
        except Exception as error:
            # lhotse explains at length what each of its backends said.
            reason = str(error).splitlines()[0]
            raise DataError(f"The audio of cut '{cut.id}' cannot be read. {reason}") from error
        return self.log_mel(samples[0])

    def _remember(self, key: tuple[object, ...], features: np.ndarray) -> None:
        self._free_bytes -= features.nbytes
        self._cache[key] = features
        while self._free_bytes < 0 and self._cache:
            _, dropped = self._cache.popitem(last=False)
            self._free_bytes += dropped.nbytes


def _identity(cut: MonoCut, speed: float) -> tuple[object, ...]:
    """Return what the cut's samples depend on; a perturbed recording has an id of its own."""
    return cut.recording.id, cut.recording.duration, cut.channel, cut.start, cut.duration, speed


def _is_joined(cut: MixedCut) -> bool:
    """Whether the tracks follow each other without gap, overlap, gain or noise."""
    end_s = 0.0
    for track in cut.tracks:
        if not isinstance(track.cut, MonoCut) or track.snr is not None:
            return False
        if abs(track.offset - end_s) > 1e-3:
            return False
        end_s = track.offset + track.cut.duration
    return not cut.transforms
