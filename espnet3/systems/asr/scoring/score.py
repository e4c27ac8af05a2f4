"""A test set's score by one metric: rates, their uncertainty, and where the errors are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet3.systems.asr.hypotheses import Transcripts
from espnet3.systems.asr.scoring.alignment import Alignment, Counts, align, count
from espnet3.systems.asr.scoring.metrics import ErrorRate
from espnet3.utils.errors import DataError

_CONFIDENCE_PERCENT = 95.0
_SEED = 0


@dataclass(frozen=True)
class Score:
    """What one metric says of one test set.

    Attributes:
        metric: its name, e.g. ``WER``.
        unit: what it counts, e.g. ``word``.
        alignments: by utterance id.
        counts: of the whole set.
        interval_percent: 95 % confidence interval of the rate.
        by_speaker: counts of each speaker, empty where none is known.
        by_length: counts by the length of the reference in tokens.
    """

    metric: str
    unit: str
    alignments: Mapping[str, Alignment]
    counts: Counts
    interval_percent: tuple[float, float]
    by_speaker: Mapping[str, Counts]
    by_length: Mapping[str, Counts]

    @property
    def utterances_with_errors(self) -> list[str]:
        """Their ids, those with most errors first."""
        errors = {utt_id: count(alignment).errors for utt_id, alignment in self.alignments.items()}
        return sorted((utt_id for utt_id in errors if errors[utt_id]), key=lambda u: -errors[u])

    def frequent(self, operation: str, limit: int) -> list[tuple[str | None, str | None, int]]:
        """Return the most frequent ``(reference, hypothesis, count)`` of ``S``, ``D`` or ``I``."""
        pairs = Counter(
            (token.reference, token.hypothesis)
            for alignment in self.alignments.values()
            for token in alignment
            if token.operation == operation
        )
        ranked = sorted(pairs.items(), key=lambda item: (-item[1], str(item[0])))
        return [(*pair, times) for pair, times in ranked[:limit]]

    def as_json(self, confusions: int) -> dict[str, Any]:
        """Return all of it for ``metrics.json``; rates in percent."""
        return {
            **_counts_as_json(self.counts),
            "unit": self.unit,
            "interval_percent": [round(bound, 3) for bound in self.interval_percent],
            "confidence_percent": _CONFIDENCE_PERCENT,
            "utterances": len(self.alignments),
            "utterances_with_errors": len(self.utterances_with_errors),
            "confusions": [
                {"reference": reference, "hypothesis": hypothesis, "count": times}
                for reference, hypothesis, times in self.frequent("S", confusions)
            ],
            "deleted": [
                {"reference": token, "count": times}
                for token, _, times in self.frequent("D", confusions)
            ],
            "inserted": [
                {"hypothesis": token, "count": times}
                for _, token, times in self.frequent("I", confusions)
            ],
            "by_speaker": {name: _counts_as_json(each) for name, each in self.by_speaker.items()},
            "by_length": {name: _counts_as_json(each) for name, each in self.by_length.items()},
            "per_utterance": {
                utt_id: {
                    **_counts_as_json(count(alignment)),
                    "operations": "".join(token.operation for token in alignment),
                }
                for utt_id, alignment in self.alignments.items()
            },
        }


def score(metric: ErrorRate, test_set: Transcripts, *, bootstrap_samples: int) -> Score:
    """Return the score of ``test_set`` by ``metric``.

    Raises:
        DataError: nothing is left of the references after cleaning.
    """
    utt_ids = list(test_set.references)
    references, hypotheses = (
        [metric.tokens(metric.clean(texts[utt_id])) for utt_id in utt_ids]
        for texts in (test_set.references, test_set.hypotheses)
    )
    if not any(references):
        raise DataError(
            f"{metric.name}: the references are empty after cleaning. Check ref.txt and the "
            "metric's clean_types."
        )
    alignments = dict(zip(utt_ids, align(references, hypotheses), strict=True))
    counts = {utt_id: count(alignment) for utt_id, alignment in alignments.items()}
    by_speaker: dict[str, Counts] = defaultdict(Counts)
    by_length: dict[int, Counts] = defaultdict(Counts)
    for utt_id, own in counts.items():
        if utt_id in test_set.speakers:
            by_speaker[test_set.speakers[utt_id]] += own
        by_length[own.reference_tokens.bit_length()] += own
    return Score(
        metric=metric.name,
        unit=metric.unit,
        alignments=alignments,
        counts=sum(counts.values(), Counts()),
        interval_percent=bootstrap_interval(list(counts.values()), bootstrap_samples),
        by_speaker=dict(sorted(by_speaker.items())),
        by_length={_length_range(bits): by_length[bits] for bits in sorted(by_length)},
    )


def bootstrap_interval(counts: Sequence[Counts], samples: int) -> tuple[float, float]:
    """Return the 95 % interval of the error rate, in percent, by resampling utterances.

    Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation"
    (ICASSP 2004): utterances are drawn with replacement, since errors within one depend on each
    other. Utterances of one speaker are taken as independent, so of few speakers the interval
    is too narrow. The draw has a fixed seed.
    """
    errors = np.array([each.errors for each in counts])
    lengths = np.array([each.reference_tokens for each in counts])
    generator = np.random.default_rng(_SEED)
    rates = np.empty(samples)
    for index in range(samples):
        drawn = generator.integers(len(counts), size=len(counts))
        rates[index] = errors[drawn].sum() / max(lengths[drawn].sum(), 1)
    tail = (100.0 - _CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(100.0 * rates, [tail, 100.0 - tail])
    return float(low), float(high)


def _counts_as_json(counts: Counts) -> dict[str, Any]:
    return {
        "rate_percent": round(counts.rate_percent, 3),
        "reference_tokens": counts.reference_tokens,
        "correct": counts.correct,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
    }


def _length_range(bits: int) -> str:
    """Return the lengths whose binary form has ``bits`` digits: 0, 1, 2-3, 4-7, 8-15, …"""
    low, high = (1 << bits) >> 1, (1 << bits) - 1
    return str(high) if low >= high else f"{low}-{high}"
