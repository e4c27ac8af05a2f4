"""SpecAugment on a batch of normalised features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espnet3.systems.asr.training_config import SpecAugmentConfig


class SpecAugment(nn.Module):
    """Masks random bands of bins and spans of frames with 0, the mean (Park et al. 2019)."""

    def __init__(self, config: SpecAugmentConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Mask features (batch, frames, bins) of ``lengths`` (batch,) frames while training."""
        config = self.config
        if not self.training:
            return features
        batch, frames, bins = features.shape
        hidden = torch.zeros(batch, frames, bins, dtype=torch.bool, device=features.device)
        if config.num_freq_masks:
            limit = torch.full_like(lengths, bins)
            width = torch.full_like(lengths, config.max_freq_mask_bins)
            hidden |= _spans(config.num_freq_masks, width, limit, bins)[:, None, :]
        if config.num_time_masks:
            width = (lengths * config.max_time_mask_fraction).long()
            width = width.clamp(max=config.max_time_mask_frames)
            hidden |= _spans(config.num_time_masks, width, lengths, frames)[:, :, None]
        return features.masked_fill(hidden, 0.0)


def _spans(count: int, max_width: Tensor, limit: Tensor, size: int) -> Tensor:
    """Return (batch, size) bool: the union of ``count`` random spans within [0, limit)."""
    batch, device = limit.shape[0], limit.device
    width = torch.rand(batch, count, device=device) * (max_width[:, None] + 1)
    width = width.floor()
    start = (torch.rand(batch, count, device=device) * (limit[:, None] - width + 1)).floor()
    position = torch.arange(size, device=device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=1)
