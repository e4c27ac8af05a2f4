"""The alignment of a hypothesis with its reference, token by token."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import jiwer

# jiwer takes sentences: tokens (which may be spaces) are parted by what no text contains.
_SEPARATOR = "\x1f"
_SPLIT = jiwer.Compose([jiwer.ReduceToListOfListOfWords(word_delimiter=_SEPARATOR)])

Operation = Literal["C", "S", "D", "I"]  # correct, substituted, deleted, inserted
_OPERATIONS: dict[str, Operation] = {
    "equal": "C",
    "substitute": "S",
    "delete": "D",
    "insert": "I",
}


@dataclass(frozen=True)
class AlignedToken:
    """A reference token against a hypothesis token; one is ``None`` where it has no partner."""

    operation: Operation
    reference: str | None
    hypothesis: str | None


@dataclass(frozen=True)
class Counts:
    """How often each operation occurs; sums with ``+``."""

    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_tokens(self) -> int:
        """Length of the reference."""
        return self.correct + self.substitutions + self.deletions

    @property
    def rate_percent(self) -> float:
        """Errors per hundred reference tokens; of an empty reference, per token inserted."""
        return 100.0 * self.errors / max(self.reference_tokens, 1)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.correct + other.correct,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


Alignment = tuple[AlignedToken, ...]


def align(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> list[Alignment]:
    """Return the alignment of fewest edit operations for each pair of token sequences."""
    if not references:
        return []
    output = jiwer.process_words(
        [_SEPARATOR.join(tokens) for tokens in references],
        [_SEPARATOR.join(tokens) for tokens in hypotheses],
        reference_transform=_SPLIT,
        hypothesis_transform=_SPLIT,
    )
    return [
        tuple(_aligned_tokens(*parts))
        for parts in zip(output.references, output.hypotheses, output.alignments, strict=True)
    ]


def count(alignment: Iterable[AlignedToken]) -> Counts:
    """Return how often each operation occurs in ``alignment``."""
    operations = [token.operation for token in alignment]
    return Counts(*(operations.count(operation) for operation in ("C", "S", "D", "I")))


def error_counts(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> Counts:
    """Return the operations of all pairs of token sequences together."""
    return sum((count(alignment) for alignment in align(references, hypotheses)), Counts())


def three_lines(alignment: Alignment) -> str:
    """Return ``REF:``, ``HYP:`` and ``Eval:`` lines in columns, as NIST's sclite prints them.

    Wrong tokens are in capitals where they can be, asterisks stand for a missing partner.
    """
    rows: tuple[list[str], ...] = (["REF:"], ["HYP:"], ["Eval:"])
    for token in alignment:
        wrong = token.operation != "C"
        reference, hypothesis = (
            None if text is None else _visible(text.upper() if wrong else text)
            for text in (token.reference, token.hypothesis)
        )
        width = max(_columns(text) for text in (reference or "", hypothesis or "", "*"))
        cells = (reference, hypothesis, token.operation if wrong else "")
        for row, cell in zip(rows, cells, strict=True):
            text = "*" * width if cell is None else cell
            row.append(text + " " * (width - _columns(text)))
    label = max(len(row[0]) for row in rows)
    return "\n".join(" ".join([row[0].ljust(label), *row[1:]]).rstrip() for row in rows)


def _aligned_tokens(
    reference: list[str], hypothesis: list[str], chunks: list[jiwer.AlignmentChunk]
) -> Iterable[AlignedToken]:
    for chunk in chunks:
        operation = _OPERATIONS[chunk.type]
        before: Sequence[str | None] = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        after: Sequence[str | None] = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        length = max(len(before), len(after))
        for pair in zip(before or [None] * length, after or [None] * length, strict=True):
            yield AlignedToken(operation, *pair)


def _visible(text: str) -> str:
    return "␣" if text == " " else text


def _columns(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: wide East Asian characters two."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )
