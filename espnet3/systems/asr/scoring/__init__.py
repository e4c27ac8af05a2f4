"""Scoring: error rates, alignments, and the stage ``measure``."""

from espnet3.systems.asr.scoring.measure import run_measure
from espnet3.systems.asr.scoring.metrics import CER, WER, ErrorRate

__all__ = ["CER", "WER", "ErrorRate", "run_measure"]
