"""The recogniser's network: normalisation, subsampling, encoder and CTC output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from espnet3.systems.asr.model.encoder import Encoder
from espnet3.systems.asr.model.normalisation import GlobalNormalisation
from espnet3.systems.asr.model.spec_augment import SpecAugment
from espnet3.systems.asr.model.subsampling import ConvSubsampling

if TYPE_CHECKING:
    from espnet3.systems.asr.training_config import TrainingConfig

BLANK_ID = 0


class CTCModel(nn.Module):
    """An encoder with a CTC output layer (Graves et al. 2006); the blank is id 0.

    ``encode`` is apart from ``forward`` so that further heads, such as an attention decoder,
    can read the same encoding.
    """

    def __init__(self, config: TrainingConfig, vocab_size: int) -> None:
        super().__init__()
        features, model = config.features, config.model
        self.normalisation = GlobalNormalisation(
            features.num_mel_bins, utterance_mean_removal=features.utterance_mean_removal
        )
        self.spec_augment = SpecAugment(config.augmentation.spec_augment)
        self.subsampling = ConvSubsampling(
            features.num_mel_bins,
            model.dim,
            factor=model.subsampling.factor,
            channels=model.subsampling.channels,
        )
        self.encoder = Encoder(model)
        self.output = nn.Linear(model.dim, vocab_size)

    def encode(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoding (batch, frames', dim) and its lengths (batch,)."""
        normalised = self.normalisation(features, feature_lengths)
        augmented = self.spec_augment(normalised, feature_lengths)
        hidden, lengths = self.subsampling(augmented, feature_lengths)
        return self.encoder(hidden, lengths), lengths

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities over tokens.

        Args:
            features: (batch, frames, bins) log-mel, as :class:`LogMel` gives them.
            feature_lengths: (batch,) frames of each utterance.

        Returns:
            (batch, frames', vocab_size) float32 and (batch,) frames' of each utterance.
        """
        encoded, lengths = self.encode(features, feature_lengths)
        return self.output(encoded).float().log_softmax(dim=-1), lengths


def build_model(config: TrainingConfig, vocab_size: int) -> CTCModel:
    """Return an untrained model for ``vocab_size`` tokens, the blank counted."""
    return CTCModel(config, vocab_size)
