"""Greedy decoding is the best path, label by label."""

import itertools

import pytest
import torch

from espnet3.systems.asr.decoding import greedy_ctc


def test_it_is_the_best_of_all_alignments():
    log_probs = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    lengths = torch.tensor([5, 5, 4, 3, 1, 0])
    for row, found in enumerate(greedy_ctc(log_probs, lengths)):
        length = int(lengths[row])
        paths = itertools.product(range(3), repeat=length)
        score, best = max(
            (sum(log_probs[row, t, v].item() for t, v in enumerate(p)), p) for p in paths
        )
        assert found.token_ids == [v for v, _ in itertools.groupby(best) if v != 0]
        assert found.score == pytest.approx(score, abs=1e-5)


def test_repetitions_collapse_unless_a_blank_parts_them():
    path = [0, 2, 2, 0, 2, 1, 1, 1]
    log_probs = torch.nn.functional.one_hot(torch.tensor([path]), 3).float().log()
    (found,) = greedy_ctc(log_probs, torch.tensor([7]))
    assert found.token_ids == [2, 2, 1]
    assert found.frames == [1, 4, 5]
    assert found.score == 0.0
