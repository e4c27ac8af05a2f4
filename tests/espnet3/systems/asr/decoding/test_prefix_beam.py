"""Prefix beam search against the enumeration of every alignment."""

import itertools
import math
from collections import defaultdict

import pytest
import torch

from espnet3.systems.asr.decoding import greedy_ctc, prefix_beam_ctc


def random_log_probs(batch, frames, vocab, seed, sharpness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(batch, frames, vocab, generator=generator)).log_softmax(-1)


def every_labelling(log_probs):
    """Return {labels: log-probability} summed over all V**T alignments of ``(T, V)``."""
    frames, vocab = log_probs.shape
    sums = defaultdict(float)
    for alignment in itertools.product(range(vocab), repeat=frames):
        labels = tuple(token for token, _ in itertools.groupby(alignment) if token != 0)
        path = sum(log_probs[t, v].item() for t, v in enumerate(alignment))
        sums[labels] += math.exp(path)
    return {labels: math.log(value) for labels, value in sums.items()}


def textbook_prefix_beam(log_probs, beam_size):
    """Hannun et al., algorithm 1, on dictionaries: every token tried for every prefix."""
    beam = {(): (0.0, -math.inf)}

    def add(*values):
        top = max(values)
        return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in values))

    for frame in log_probs.double().tolist():
        following = defaultdict(lambda: (-math.inf, -math.inf))
        for prefix, (blank, token) in beam.items():
            old = following[prefix]
            following[prefix] = (add(old[0], blank + frame[0], token + frame[0]), old[1])
            for v in range(1, len(frame)):
                if prefix and prefix[-1] == v:
                    old = following[prefix]
                    following[prefix] = (old[0], add(old[1], token + frame[v]))
                    before = blank
                else:
                    before = add(blank, token)
                longer = (*prefix, v)
                old = following[longer]
                following[longer] = (old[0], add(old[1], before + frame[v]))
        best = sorted(following.items(), key=lambda item: -add(*item[1]))
        beam = dict(best[:beam_size])
    return [(list(prefix), add(*scores)) for prefix, scores in beam.items()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("frames", "vocab"), [(1, 2), (3, 3), (5, 3), (4, 4), (6, 2)])
def test_a_beam_that_holds_every_prefix_gives_the_exact_probabilities(frames, vocab, seed):
    log_probs = random_log_probs(1, frames, vocab, seed)
    expected = every_labelling(log_probs[0])
    found = prefix_beam_ctc(log_probs, torch.tensor([frames]), beam_size=len(expected) + 7)[0]
    assert {tuple(h.token_ids): pytest.approx(h.score, abs=1e-6) for h in found} == expected
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5, 10])
def test_a_narrow_beam_is_the_textbook_search(beam_size, seed):
    # Few tokens and flat distributions: prefixes leave the beam and come back.
    log_probs = random_log_probs(1, 30, 3 + seed * 5, seed, sharpness=0.5 + seed % 3)
    found = prefix_beam_ctc(log_probs, torch.tensor([30]), beam_size=beam_size)[0]
    expected = textbook_prefix_beam(log_probs[0], beam_size)
    assert [h.token_ids for h in found] == [ids for ids, _ in expected]
    assert [h.score for h in found] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_a_batch_of_unequal_lengths_decodes_as_each_utterance_alone():
    log_probs = random_log_probs(5, 20, 6, seed=0)
    lengths = torch.tensor([7, 20, 0, 13, 20])
    together = prefix_beam_ctc(log_probs, lengths, beam_size=4)
    for row, length in enumerate(lengths.tolist()):
        alone = prefix_beam_ctc(
            log_probs[row : row + 1, :length], torch.tensor([length]), beam_size=4
        )[0]
        assert [h.token_ids for h in together[row]] == [h.token_ids for h in alone]
        assert [h.frames for h in together[row]] == [h.frames for h in alone]
        assert [h.score for h in together[row]] == pytest.approx([h.score for h in alone])
    assert [(h.token_ids, h.score) for h in together[2]] == [([], 0.0)]


def test_the_sum_over_alignments_can_overrule_the_best_path():
    # Graves et al. (2006), figure 2: blank wins every frame, "a" has more alignments.
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lengths = torch.tensor([2])
    assert greedy_ctc(log_probs, lengths)[0].token_ids == []
    best = prefix_beam_ctc(log_probs, lengths, beam_size=2)[0][0]
    assert best.token_ids == [1]
    assert best.score == pytest.approx(math.log(0.64))


def test_nbest_limits_the_hypotheses_and_keeps_their_order():
    log_probs = random_log_probs(1, 8, 4, seed=3)
    lengths = torch.tensor([8])
    whole = prefix_beam_ctc(log_probs, lengths, beam_size=6)[0]
    assert prefix_beam_ctc(log_probs, lengths, beam_size=6, nbest=2)[0] == whole[:2]
    assert len(whole) == 6


def test_certain_frames_give_their_labels_and_where_they_begin():
    path = [0, 2, 2, 0, 2, 1, 1, 0]
    log_probs = torch.full((1, len(path), 3), -math.inf)
    log_probs[0, range(len(path)), path] = 0.0
    (only,) = prefix_beam_ctc(log_probs, torch.tensor([len(path)]), beam_size=5)[0]
    assert only.token_ids == [2, 2, 1]
    assert only.frames == [1, 4, 5]
    assert only.score == pytest.approx(0.0)
