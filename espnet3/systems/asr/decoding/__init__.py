"""CTC decoding: from frame log-probabilities to scored token sequences."""

from espnet3.systems.asr.decoding.greedy import greedy_ctc
from espnet3.systems.asr.decoding.hypothesis import Hypothesis
from espnet3.systems.asr.decoding.prefix_beam import prefix_beam_ctc

__all__ = ["Hypothesis", "greedy_ctc", "prefix_beam_ctc"]
