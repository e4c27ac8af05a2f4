"""Multi-head self-attention and the encodings of position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _angles(frames: int, dim: int, device: torch.device) -> Tensor:
    """Return position × frequency (frames, dim / 2), frequencies as in Vaswani et al. 2017."""
    frequencies = torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / dim)
    )
    return torch.arange(frames, device=device, dtype=torch.float32)[:, None] * frequencies


def sinusoids(frames: int, dim: int, device: torch.device) -> Tensor:
    """Return the absolute encoding (frames, dim) that is added to the encoder's input."""
    angles = _angles(frames, dim, device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Rotary:
    """Rotations that make attention depend on relative position (Su et al. 2021, RoFormer)."""

    def __init__(self, frames: int, head_dim: int, device: torch.device) -> None:
        angles = _angles(frames, head_dim, device)
        self.cos = torch.cat([angles.cos()] * 2, dim=-1)
        self.sin = torch.cat([-angles.sin(), angles.sin()], dim=-1)

    def __call__(self, heads: Tensor) -> Tensor:
        """Rotate (…, frames, head_dim); both halves of a head form the rotated pairs."""
        swapped = heads.roll(heads.shape[-1] // 2, dims=-1)
        return heads * self.cos.to(heads.dtype) + swapped * self.sin.to(heads.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention through ``scaled_dot_product_attention``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor | None, rotary: Rotary | None) -> Tensor:
        """Attend over (batch, frames, dim).

        Args:
            hidden: (batch, frames, dim).
            mask: (batch, 1, 1, frames) bool, True where a frame may be looked at; None for all.
            rotary: the encoding of position, when it is relative.
        """
        batch, frames, dim = hidden.shape
        qkv = self.qkv(hidden).view(batch, frames, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            query, key = rotary(query), rotary(key)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).reshape(batch, frames, dim))
