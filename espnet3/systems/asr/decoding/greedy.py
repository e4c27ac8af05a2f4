"""Best-path CTC decoding."""

from __future__ import annotations

import torch

from espnet3.systems.asr.decoding.hypothesis import Hypothesis
from espnet3.systems.asr.tokenizer import BLANK_ID


def greedy_ctc(log_probs: torch.Tensor, lengths: torch.Tensor) -> list[Hypothesis]:
    """Return for each utterance the labels of its single most probable alignment.

    Args:
        log_probs: ``(B, T, V)`` natural log-probabilities, blank at 0.
        lengths: ``(B,)`` number of valid frames.
    """
    best, tokens = log_probs.max(dim=-1)
    valid = torch.arange(tokens.size(1), device=tokens.device) < lengths[:, None]
    previous = torch.nn.functional.pad(tokens, (1, 0), value=BLANK_ID)[:, :-1]
    begins = (valid & (tokens != previous) & (tokens != BLANK_ID)).cpu().numpy()
    scores = torch.where(valid, best, 0.0).sum(dim=-1, dtype=torch.float64).tolist()
    ids = tokens.cpu().numpy()
    hypotheses = []
    for row, score in enumerate(scores):
        frames = begins[row].nonzero()[0]
        hypotheses.append(Hypothesis(ids[row, frames].tolist(), score, frames.tolist()))
    return hypotheses
