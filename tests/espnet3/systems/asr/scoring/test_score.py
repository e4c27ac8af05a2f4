"""Scores of a small test set, worked out by hand."""

import pytest

from espnet3.systems.asr.hypotheses import Transcripts
from espnet3.systems.asr.scoring import CER, WER
from espnet3.systems.asr.scoring.alignment import Counts
from espnet3.systems.asr.scoring.score import bootstrap_interval, score
from espnet3.systems.asr.scoring.table import report, summary_table
from espnet3.utils.errors import DataError

SET = Transcripts(
    references={"u1": "one two three", "u2": "two", "u3": "two four", "u4": "five"},
    hypotheses={"u1": "one too three", "u2": "too too", "u3": "two", "u4": "five"},
    speakers={"u1": "anna", "u2": "bert", "u3": "anna"},
)


def of(metric=None, data=SET):
    return score(metric or WER(), data, bootstrap_samples=200)


def test_counts_and_rate():
    assert of().counts == Counts(correct=4, substitutions=2, deletions=1, insertions=1)
    assert of().counts.rate_percent == pytest.approx(100 * 4 / 7)


def test_where_the_errors_are():
    wer = of()
    assert wer.by_speaker == {"anna": Counts(3, 1, 1, 0), "bert": Counts(0, 1, 0, 1)}
    assert wer.by_length == {"1": Counts(1, 1, 0, 1), "2-3": Counts(3, 1, 1, 0)}
    assert wer.utterances_with_errors == ["u2", "u1", "u3"]
    assert wer.frequent("S", 5) == [("two", "too", 2)]
    assert wer.frequent("D", 5) == [("four", None, 1)]
    assert wer.frequent("I", 5) == [(None, "too", 1)]
    assert wer.frequent("S", 0) == []


def test_characters():
    assert of(CER()).counts.reference_tokens == len("one two threetwotwo fourfive")
    assert of(CER()).counts.deletions == len(" four")


def test_json_tells_each_utterance():
    content = of().as_json(confusions=5)
    assert content["rate_percent"] == 57.143
    assert content["per_utterance"]["u1"]["operations"] == "CSC"
    assert content["per_utterance"]["u3"]["deletions"] == 1
    assert content["confusions"] == [{"reference": "two", "hypothesis": "too", "count": 2}]
    low, high = content["interval_percent"]
    assert low <= 57.143 <= high


def test_cleaning_applies_to_both_sides():
    data = Transcripts({"u": "One, two"}, {"u": "one TWO"})
    assert of(WER(), data).counts.errors == 2
    assert of(WER(["lowercase", "no_punctuation"]), data).counts.errors == 0


def test_references_that_cleaning_empties():
    with pytest.raises(DataError, match="empty after cleaning"):
        of(WER(["no_punctuation"]), Transcripts({"u": "..."}, {"u": "a"}))


def test_the_interval_covers_the_true_rate_about_19_times_in_20():
    import numpy as np

    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        errors = generator.binomial(10, 0.1, size=100)
        counts = [Counts(correct=10 - int(e), substitutions=int(e)) for e in errors]
        low, high = bootstrap_interval(counts, 200)
        covered += low <= 10.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_is_the_same_every_time_and_empty_without_variation():
    counts = [Counts(correct=9, substitutions=1)] * 20
    assert bootstrap_interval(counts, 100) == (10.0, 10.0)
    mixed = [Counts(correct=9, substitutions=1), Counts(correct=10)] * 10
    assert bootstrap_interval(mixed, 100) == bootstrap_interval(mixed, 100)


def test_the_report_for_a_person():
    scores = {"test": [of(), of(CER())]}
    table = summary_table(scores).splitlines()
    assert table[2].startswith("test WER   57.14  ")
    assert table[2].split()[-7:] == ["7", "4", "2", "1", "1", "4", "3"]
    text = report(scores, confusions=5)
    assert "anna" in text
    assert "      2  'two' -> 'too'" in text
    assert "id: u2\nScores: (#C #S #D #I) 0 1 0 1\n" in text
    assert "id: u4" not in text


def test_a_report_without_errors_says_so():
    perfect = Transcripts({"u": "a b"}, {"u": "a b"})
    assert "no utterance has an error" in report({"test": [of(WER(), perfect)]}, confusions=5)
