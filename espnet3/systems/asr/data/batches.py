"""One batch: padded features, token ids, and where in the data it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor

from espnet3.data import transcript
from espnet3.systems.asr.data.feature_store import FeatureStore
from espnet3.systems.asr.tokenizer import Tokenizer


class Position(NamedTuple):
    """A place in the endless sequence of batches: what is needed to go on after it."""

    epoch: int
    batch: int  # within the epoch
    total: int  # batches of all earlier epochs and this one, this batch counted


class Batch(NamedTuple):
    """Utterances of like length.

    Shapes: features (batch, frames, bins), feature_lengths (batch,), tokens (sum of
    token_lengths,) as CTC takes them, token_lengths (batch,).
    """

    features: Tensor
    feature_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    texts: list[str]
    position: Position


class BatchMaker:
    """Makes a :class:`Batch` of cuts."""

    def __init__(self, store: FeatureStore, tokenizer: Tokenizer) -> None:
        self.store = store
        self.tokenizer = tokenizer

    def __call__(
        self, cuts: Sequence[Cut], position: Position, speeds: Sequence[float] | None = None
    ) -> Batch:
        """Return the batch of ``cuts``, each played at its factor of ``speeds``."""
        speeds = speeds or [1.0] * len(cuts)
        arrays = [self.store.features(*pair) for pair in zip(cuts, speeds, strict=True)]
        lengths = [len(array) for array in arrays]
        padded = np.zeros((len(cuts), max(lengths), arrays[0].shape[1]), dtype=np.float32)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        texts = [transcript(cut) for cut in cuts]
        ids = [self.tokenizer.encode(text) for text in texts]
        return Batch(
            features=torch.from_numpy(padded),
            feature_lengths=torch.tensor(lengths),
            tokens=torch.tensor([token for row in ids for token in row], dtype=torch.long),
            token_lengths=torch.tensor([len(row) for row in ids]),
            texts=texts,
            position=position,
        )
