"""Normalisation of features by statistics of the training data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GlobalNormalisation(nn.Module):
    """Subtract the mean and divide by the deviation of each bin, found by ``collect_stats``.

    With ``utterance_mean_removal`` each utterance's own mean is taken away first. The statistics
    are buffers: a checkpoint carries them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_mel_bins: int, *, utterance_mean_removal: bool) -> None:
        super().__init__()
        self.utterance_mean_removal = utterance_mean_removal
        self.register_buffer("mean", torch.zeros(num_mel_bins))
        self.register_buffer("std", torch.ones(num_mel_bins))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise (batch, frames, bins); frames at and after ``lengths`` become 0."""
        present = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        present = present[:, :, None].to(features.dtype)
        if self.utterance_mean_removal:
            total = (features * present).sum(dim=1, keepdim=True)
            features = features - total / lengths.clamp(min=1)[:, None, None]
        return (features - self.mean) / self.std * present
