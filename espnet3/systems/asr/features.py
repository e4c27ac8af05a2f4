"""Log-mel filter banks as Kaldi computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kaldi_native_fbank as knf
import numpy as np

if TYPE_CHECKING:
    from espnet3.systems.asr.training_config import FeaturesConfig

_INT16_SCALE = 32768.0


class LogMel:
    """Kaldi-compatible log-mel features, without dither.

    Frames are centred (``snip_edges`` off): n samples give round(n / shift) frames, so features
    of joined recordings line up with the recordings' own.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        self.sample_rate_hz: int = config.sample_rate_hz
        self.num_mel_bins: int = config.num_mel_bins
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = config.sample_rate_hz
        options.frame_opts.frame_length_ms = config.frame_length_ms
        options.frame_opts.frame_shift_ms = config.frame_shift_ms
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = False
        options.mel_opts.num_bins = config.num_mel_bins
        options.mel_opts.low_freq = config.low_freq_hz
        options.mel_opts.high_freq = config.high_freq_hz
        self._options = options

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the features of one channel of audio.

        Args:
            samples: (num_samples,) in [-1, 1] at ``sample_rate_hz``.

        Returns:
            (frames, num_mel_bins) float32, natural logarithm.
        """
        fbank = knf.OnlineFbank(self._options)
        # kaldi-native-fbank takes samples as Kaldi reads them, 16-bit integers held in floats;
        # unscaled ones would fall under the log floor in quiet frames.
        scaled = np.asarray(samples, dtype=np.float32) * _INT16_SCALE
        fbank.accept_waveform(self.sample_rate_hz, scaled.tolist())
        fbank.input_finished()
        frames = [fbank.get_frame(index) for index in range(fbank.num_frames_ready)]
        if not frames:
            return np.zeros((0, self.num_mel_bins), dtype=np.float32)
        return np.stack(frames)
