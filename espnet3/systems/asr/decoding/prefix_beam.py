"""CTC prefix beam search, for a whole batch at once.

Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
Recurrent DNNs" (2014), without a language model: a prefix keeps the log-probability of its
alignments that end in blank apart from that of those that end in its last token, and the
alignments that give the same prefix are summed.

The search over utterances and prefixes is vectorised; only frames are a loop. Nothing is
pruned but the beam itself: the ``2 K`` best tokens of a frame are all that can extend a prefix
into a beam of ``K`` (see :func:`_extensions`), so the cost of a frame does not grow with the
vocabulary and the result is that of trying every token.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from espnet3.systems.asr.decoding.hypothesis import Hypothesis
from espnet3.systems.asr.tokenizer import BLANK_ID

_NEVER = float("-inf")
# A prefix is known by a 64-bit polynomial hash (Knuth's MMIX multiplier, arithmetic modulo
# 2**64), so that finding equal prefixes costs the same however long they are.
_HASH_FACTOR = 6364136223846793005
_EMPTY_PREFIX_HASH = 1
# Hashes of a slot that is not used and of the parent of the empty prefix: they match nothing.
_NO_HASH = 0
_NO_PARENT_HASH = -1


@dataclass
class _Beam:
    """``K`` prefixes of each of ``N`` utterances, every field ``(N, K)``.

    Attributes:
        blank: log-probability of the alignments that end in blank.
        token: the same of those that end in the prefix's last token.
        last: last token, -1 for the empty prefix.
        hash: of the prefix.
        parent_hash: of the prefix without its last token.
    """

    blank: torch.Tensor
    token: torch.Tensor
    last: torch.Tensor
    hash: torch.Tensor
    parent_hash: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return torch.logaddexp(self.blank, self.token)

    def first(self, count: int) -> _Beam:
        return _Beam(*(getattr(self, field.name)[:count] for field in fields(self)))


@torch.inference_mode()
def prefix_beam_ctc(
    log_probs: torch.Tensor, lengths: torch.Tensor, *, beam_size: int, nbest: int | None = None
) -> list[list[Hypothesis]]:
    """Return for each utterance its most probable token sequences, best first.

    Args:
        log_probs: ``(B, T, V)`` natural log-probabilities, blank at 0.
        lengths: ``(B,)`` number of valid frames.
        beam_size: prefixes kept after each frame, at least 1.
        nbest: hypotheses returned, at most ``beam_size``; all of the beam by default. Fewer
            come back where an utterance has fewer sequences of non-zero probability.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    sorted_lengths = lengths[order].tolist()
    # Probabilities of long utterances are sums of many terms: float64 where there is one.
    wide = torch.float32 if log_probs.device.type == "mps" else torch.float64
    frames = log_probs[order].transpose(0, 1)
    tokens_tried = min(2 * beam_size, log_probs.size(-1) - 1)
    best_log_probs, best_tokens = frames[..., 1:].topk(tokens_tried, dim=-1)
    best_tokens = best_tokens + 1

    beam = _empty_prefixes(len(sorted_lengths), beam_size, wide, log_probs.device)
    finished: list[torch.Tensor] = []  # totals of the utterances that have ended, shortest first
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    for frame in range(frames.size(0)):
        active = sum(length > frame for length in sorted_lengths)
        if active < beam.blank.size(0):
            finished.append(beam.total[active:])
            beam = beam.first(active)
        if active == 0:
            break
        beam, source, added = _advance(
            beam,
            frames[frame, :active].to(wide),
            best_log_probs[frame, :active].to(wide),
            best_tokens[frame, :active],
        )
        steps.append((source, added))
    finished.append(beam.total)
    totals = torch.cat(finished[::-1])
    return _hypotheses(totals, steps, order.tolist(), sorted_lengths, nbest or beam_size)


def _empty_prefixes(batch: int, beam_size: int, dtype: torch.dtype, device: torch.device) -> _Beam:
    """Return a beam whose first slot is the empty prefix and whose others are unused."""

    def filled(value: float, kind: torch.dtype) -> torch.Tensor:
        return torch.full((batch, beam_size), value, dtype=kind, device=device)

    blank = filled(_NEVER, dtype)
    blank[:, 0] = 0.0
    prefix_hash = filled(_NO_HASH, torch.long)
    prefix_hash[:, 0] = _EMPTY_PREFIX_HASH
    return _Beam(
        blank=blank,
        token=filled(_NEVER, dtype),
        last=filled(-1, torch.long),
        hash=prefix_hash,
        parent_hash=filled(_NO_PARENT_HASH, torch.long),
    )


def _advance(
    beam: _Beam,
    log_probs: torch.Tensor,
    best_log_probs: torch.Tensor,
    best_tokens: torch.Tensor,
) -> tuple[_Beam, torch.Tensor, torch.Tensor]:
    """Take one frame into the beam.

    Args:
        beam: of ``N`` utterances.
        log_probs: ``(N, V)`` of the frame.
        best_log_probs: ``(N, C)`` the frame's best tokens other than blank.
        best_tokens: ``(N, C)`` their ids.

    Returns:
        The next beam; ``(N, K)`` the slot that each of its prefixes came from; ``(N, K)`` the
        token that it added to it, 0 for none.
    """
    beam_size = beam.blank.size(1)
    total = beam.total
    last_log_probs = log_probs.gather(1, beam.last.clamp(min=0))
    # The same prefix after this frame: one more blank, its last token once more …
    blank = total + log_probs[:, BLANK_ID, None]
    token = beam.token + last_log_probs
    # … or its last token for the first time, where the prefix without it is in the beam too.
    is_child = beam.parent_hash[:, :, None] == beam.hash[:, None, :]  # (N, child, parent)
    same_last = beam.last[:, :, None] == beam.last[:, None, :]
    before = torch.where(same_last, beam.blank[:, None, :], total[:, None, :])
    from_parent = torch.where(is_child, before, _NEVER).amax(dim=-1)  # a child has one parent
    token = torch.logaddexp(token, from_parent + last_log_probs)

    extended = _extensions(beam, total, is_child, best_log_probs, best_tokens)
    scores = torch.cat([torch.logaddexp(blank, token), extended], dim=1)
    scores, chosen = scores.topk(beam_size, dim=1)

    stays = chosen < beam_size
    flat = (chosen - beam_size).clamp(min=0)
    source = torch.where(stays, chosen, flat // best_tokens.size(1))
    added = torch.where(stays, 0, best_tokens.gather(1, flat % best_tokens.size(1)))
    source_hash = beam.hash.gather(1, source)
    prefix_hash = torch.where(stays, source_hash, source_hash * _HASH_FACTOR + added)
    parent_hash = torch.where(stays, beam.parent_hash.gather(1, source), source_hash)
    is_used = scores > _NEVER
    following = _Beam(
        blank=torch.where(stays, blank.gather(1, source), _NEVER),
        token=torch.where(stays, token.gather(1, source), scores),
        last=torch.where(stays, beam.last.gather(1, source), added),
        hash=torch.where(is_used, prefix_hash, _NO_HASH),
        parent_hash=torch.where(is_used, parent_hash, _NO_PARENT_HASH),
    )
    return following, source, added


def _extensions(
    beam: _Beam,
    total: torch.Tensor,
    is_child: torch.Tensor,
    best_log_probs: torch.Tensor,
    best_tokens: torch.Tensor,
) -> torch.Tensor:
    """Return ``(N, K × C)`` scores of the prefixes that are one token longer.

    An extension that is in the beam already is left out (its probability went to that prefix),
    and one that repeats the last token can only follow a blank. For a prefix that makes at most
    ``K`` tokens worse than their own log-probability, so of its best ``2 K`` at least ``K`` come
    before any token left out here: none of those could have entered the next beam.
    """
    repeats = beam.last[:, :, None] == best_tokens[:, None, :]  # (N, K, C)
    before = torch.where(repeats, beam.blank[:, :, None], total[:, :, None])
    scores = (before + best_log_probs[:, None, :]).flatten(1)

    parent = is_child.to(torch.uint8).argmax(dim=-1)  # (N, K) slot of each prefix's parent
    rank = repeats.to(torch.uint8).argmax(dim=-1)  # (N, K) place of its last token in C
    in_beam = is_child.any(dim=-1) & repeats.any(dim=-1)
    nowhere = scores.size(1)
    index = torch.where(in_beam, parent * best_tokens.size(1) + rank, nowhere)
    taken = torch.zeros(scores.size(0), nowhere + 1, dtype=torch.bool, device=scores.device)
    return scores.masked_fill(taken.scatter(1, index, True)[:, :nowhere], _NEVER)


def _hypotheses(
    totals: torch.Tensor,
    steps: list[tuple[torch.Tensor, torch.Tensor]],
    order: list[int],
    lengths: list[int],
    nbest: int,
) -> list[list[Hypothesis]]:
    """Follow the beams of all frames back to their token sequences, in the caller's order."""
    scores, slots = totals.sort(dim=1, descending=True, stable=True)
    score_rows, slot_rows = scores.tolist(), slots.tolist()
    sources = [source.cpu().numpy() for source, _ in steps]
    tokens = [added.cpu().numpy() for _, added in steps]
    results: list[list[Hypothesis]] = [[] for _ in order]
    for row, index in enumerate(order):
        for score, slot in zip(score_rows[row][:nbest], slot_rows[row], strict=False):
            if score == _NEVER:
                break
            ids, frames = [], []
            for frame in range(lengths[row] - 1, -1, -1):
                token = int(tokens[frame][row, slot])
                if token != BLANK_ID:
                    ids.append(token)
                    frames.append(frame)
                slot = int(sources[frame][row, slot])
            results[index].append(Hypothesis(ids[::-1], score, frames[::-1]))
    return results
