"""``metrics.txt``: scores for a person to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from espnet3.systems.asr.scoring.alignment import Counts, count, three_lines
from espnet3.systems.asr.scoring.score import Score

_COLUMNS = ("", "rate %", "95 % interval", "tokens", "corr", "sub", "del", "ins", "utts", "wrong")


def summary_table(scores: Mapping[str, Sequence[Score]]) -> str:
    """Return one line per test set and metric.

    Args:
        scores: by the test set's name.
    """
    rows = []
    for test_name, of_test in scores.items():
        for each in of_test:
            low, high = each.interval_percent
            rows.append(
                (
                    f"{test_name} {each.metric}",
                    f"{each.counts.rate_percent:.2f}",
                    f"{low:.2f} - {high:.2f}",
                    *_figures(each.counts),
                    str(len(each.alignments)),
                    str(len(each.utterances_with_errors)),
                )
            )
    return _table(_COLUMNS, rows)


def report(scores: Mapping[str, Sequence[Score]], *, confusions: int) -> str:
    """Return the whole of ``metrics.txt``: the table, then each test set's errors in detail."""
    parts = [summary_table(scores)]
    for test_name, of_test in scores.items():
        for each in of_test:
            parts.append(f"== {test_name} {each.metric} (by {each.unit}) ==")
            parts += _breakdowns(each)
            parts += _frequent_errors(each, confusions)
        if of_test:
            parts.append(_alignments(test_name, of_test[0]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _breakdowns(score: Score) -> Iterable[str]:
    for title, groups in (
        ("speaker", score.by_speaker),
        (f"reference {score.unit}s", score.by_length),
    ):
        if len(groups) > 1:
            rows = [
                (name, f"{each.rate_percent:.2f}", *_figures(each)) for name, each in groups.items()
            ]
            yield _table((title, "rate %", "tokens", "corr", "sub", "del", "ins"), rows)


def _frequent_errors(score: Score, limit: int) -> Iterable[str]:
    for operation, title in (("S", "substituted"), ("D", "deleted"), ("I", "inserted")):
        lines = []
        for reference, hypothesis, times in score.frequent(operation, limit):
            shown = " -> ".join(
                repr(token) for token in (reference, hypothesis) if token is not None
            )
            lines.append(f"{times:7d}  {shown}")
        if lines:
            yield "\n".join([f"most often {title}:", *lines])


def _alignments(test_name: str, score: Score) -> str:
    wrong = score.utterances_with_errors
    if not wrong:
        return f"{test_name}: no utterance has an error by {score.metric}."
    blocks = [f"{test_name}: the {len(wrong)} utterances with errors by {score.metric}"]
    for utt_id in wrong:
        own = count(score.alignments[utt_id])
        head = (
            f"id: {utt_id}\nScores: (#C #S #D #I) "
            f"{own.correct} {own.substitutions} {own.deletions} {own.insertions}"
        )
        blocks.append(f"{head}\n{three_lines(score.alignments[utt_id])}")
    return "\n\n".join(blocks)


def _figures(counts: Counts) -> tuple[str, ...]:
    numbers = (
        counts.reference_tokens,
        counts.correct,
        counts.substitutions,
        counts.deletions,
        counts.insertions,
    )
    return tuple(str(number) for number in numbers)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return ``rows`` under ``columns``: the first to the left, figures to the right."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        first = row[0].ljust(widths[0])
        others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *others]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
