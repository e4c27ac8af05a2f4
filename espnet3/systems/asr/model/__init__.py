"""The acoustic model: features in, log-probabilities over tokens out."""

from espnet3.systems.asr.model.ctc_model import CTCModel, build_model

__all__ = ["CTCModel", "build_model"]
