"""Conformer and Transformer encoders."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from espnet3.systems.asr.model.attention import Rotary, SelfAttention, sinusoids
from espnet3.systems.asr.model.dropout import FrameDropout
from espnet3.systems.asr.model.subsampling import channels_last
from espnet3.systems.asr.training_config import ModelConfig


class FeedForward(nn.Sequential):
    """Pre-norm feed-forward block."""

    def __init__(self, config: ModelConfig, activation: nn.Module) -> None:
        super().__init__(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, config.feedforward_dim),
            activation,
            _dropout(config),
            nn.Linear(config.feedforward_dim, config.dim),
            _dropout(config),
        )


class Attention(nn.Module):
    """Pre-norm self-attention block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.num_heads)
        self.dropout = _dropout(config)

    def forward(self, hidden: Tensor, mask: Tensor | None, rotary: Rotary | None) -> Tensor:
        """Return what is added to ``hidden`` (batch, frames, dim)."""
        return self.dropout(self.attention(self.norm(hidden), mask, rotary))


class Convolution(nn.Module):
    """The Conformer's convolution block (Gulati et al. 2020), LayerNorm in place of BatchNorm.

    BatchNorm's running statistics differ between ranks and are poor for small batches; LayerNorm
    needs none, and padding cannot leak into it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, kernel = config.dim, config.conv_kernel
        self.norm = nn.LayerNorm(dim)
        self.pointwise_in = nn.Linear(dim, 2 * dim)
        # As 2-D over (1, frames): (batch, frames, dim) then is channels-last memory already, and
        # no transposed copy is made.
        self.depthwise = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim)
        channels_last(self.depthwise)
        self.inner_norm = nn.LayerNorm(dim)
        self.activation = nn.SiLU()
        self.pointwise_out = nn.Linear(dim, dim)
        self.dropout = _dropout(config)

    def forward(self, hidden: Tensor, keep: Tensor | None) -> Tensor:
        """Return what is added to ``hidden``; ``keep`` (batch, frames, 1) is 0 on padding."""
        gated = nn.functional.glu(self.pointwise_in(self.norm(hidden)), dim=-1)
        if keep is not None:
            gated = gated * keep
        mixed = self.depthwise(gated.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        return self.dropout(self.pointwise_out(self.activation(self.inner_norm(mixed))))


class ConformerLayer(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, LayerNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.feedforward_in = FeedForward(config, nn.SiLU())
        self.attention = Attention(config)
        self.convolution = Convolution(config)
        self.feedforward_out = FeedForward(config, nn.SiLU())
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, keep: Tensor | None, rotary: Rotary | None
    ) -> Tensor:
        """Transform (batch, frames, dim)."""
        hidden = torch.add(hidden, self.feedforward_in(hidden), alpha=0.5)
        hidden = hidden + self.attention(hidden, mask, rotary)
        hidden = hidden + self.convolution(hidden, keep)
        hidden = torch.add(hidden, self.feedforward_out(hidden), alpha=0.5)
        return self.norm(hidden)


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feedforward = FeedForward(config, nn.ReLU())

    def forward(
        self, hidden: Tensor, mask: Tensor | None, keep: Tensor | None, rotary: Rotary | None
    ) -> Tensor:
        """Transform (batch, frames, dim)."""
        hidden = hidden + self.attention(hidden, mask, rotary)
        return hidden + self.feedforward(hidden)


class Encoder(nn.Module):
    """A stack of Conformer or Transformer layers over subsampled features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layer = ConformerLayer if config.encoder == "conformer" else TransformerLayer
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_layers))
        # A Conformer layer ends in its own norm; a pre-norm Transformer needs one at the end.
        self.norm = nn.Identity() if layer is ConformerLayer else nn.LayerNorm(config.dim)
        self.dropout = _dropout(config)
        self.relative = config.position == "rotary"
        self.head_dim = config.dim // config.num_heads

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Encode (batch, frames, dim), of which ``lengths`` (batch,) frames are speech."""
        frames, dim = hidden.shape[1:]
        # As Vaswani et al. 2017 do with embeddings: without it the encoding of position, whose
        # elements reach 1, drowns what the subsampling found, and training needs twice the steps.
        hidden = hidden * math.sqrt(dim)
        rotary = None
        if self.relative:
            rotary = Rotary(frames, self.head_dim, hidden.device)
        else:
            hidden = hidden + sinusoids(frames, dim, hidden.device).to(hidden.dtype)
        hidden = self.dropout(hidden)
        present = torch.arange(frames, device=hidden.device) < lengths[:, None]
        mask = present[:, None, None, :]
        keep = present[:, :, None].to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, mask, keep, rotary)
        return self.norm(hidden)


def _dropout(config: ModelConfig) -> FrameDropout:
    return FrameDropout(config.dropout, shared_over_time=config.dropout_shared_over_time)
