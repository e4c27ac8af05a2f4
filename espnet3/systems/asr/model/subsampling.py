"""Convolutional subsampling of the features in time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Kernel and stride of the second convolution; the first is always kernel 3, stride 2.
_SECOND_CONVOLUTION = {4: (3, 2), 6: (5, 3)}


def channels_last(convolution: nn.Conv2d) -> None:
    """Lay out the weights of a 2-D convolution so that it computes channels-last."""
    weight = convolution.weight
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)


class ConvSubsampling(nn.Module):
    """Two strided 2-D convolutions and a projection: one output frame per ``factor`` inputs.

    As in ESPnet's conv2d and conv2d6 front ends, with time padded so that short utterances keep
    ceil(frames / factor) output frames.
    """

    def __init__(self, num_mel_bins: int, dim: int, *, factor: int, channels: int) -> None:
        super().__init__()
        kernel, stride = _SECOND_CONVOLUTION[factor]
        self.strides = (2, stride)
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=(1, 0))
        self.second = nn.Conv2d(channels, channels, kernel, stride=stride, padding=(kernel // 2, 0))
        bins = ((num_mel_bins - 3) // 2 + 1 - kernel) // stride + 1
        self.project = nn.Linear(channels * bins, dim)
        self.activation = nn.ReLU(inplace=True)
        # Channels last: a quarter less time on a CPU, and what tensor cores want on a GPU.
        for convolution in (self.first, self.second):
            channels_last(convolution)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the numbers of output frames for ``lengths`` (batch,) input frames."""
        for stride in self.strides:
            lengths = (lengths - 1).div(stride, rounding_mode="floor") + 1
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (batch, frames / factor, dim) and lengths for features (batch, frames, bins)."""
        hidden = self.activation(self.first(features.unsqueeze(1)))
        hidden = self.activation(self.second(hidden))
        batch, channels, frames, bins = hidden.shape
        flat = hidden.permute(0, 2, 3, 1).reshape(batch, frames, bins * channels)
        return self.project(flat), self.output_lengths(lengths)
