"""Dropout whose mask may be shared by all frames of an utterance."""

from __future__ import annotations

from torch import Tensor, nn


class FrameDropout(nn.Dropout):
    """Dropout over (batch, frames, dim), each frame for itself or all frames alike.

    A mask per utterance and dimension (variational dropout, Gal and Ghahramani 2016) is drawn
    for batch × dim numbers in place of batch × frames × dim: on a CPU, drawing the random numbers
    is a quarter of a small model's step.
    """

    def __init__(self, probability: float, *, shared_over_time: bool) -> None:
        super().__init__(probability)
        self.shared_over_time = shared_over_time

    def forward(self, input: Tensor) -> Tensor:
        """Drop out elements of ``input`` (batch, frames, dim) while training."""
        if not self.shared_over_time:
            return super().forward(input)
        if not self.training or self.p == 0.0:
            return input
        kept = 1.0 - self.p
        mask = input.new_empty(input.shape[0], 1, input.shape[2]).bernoulli_(kept)
        return input * mask.div_(kept)
