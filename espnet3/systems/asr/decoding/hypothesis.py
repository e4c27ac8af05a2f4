"""What a decoder returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One decoded token sequence.

    Attributes:
        token_ids: without blanks and without the repetitions of CTC.
        score: natural logarithm of the sequence's probability as the decoder saw it: of the
            single best alignment (greedy), or of all alignments kept (prefix beam).
        frames: for each token the index of the output frame where it begins.
    """

    token_ids: list[int]
    score: float
    frames: list[int]
