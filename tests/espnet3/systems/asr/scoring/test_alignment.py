"""Alignments and the three lines that show them."""

import pytest

from espnet3.systems.asr.scoring.alignment import Counts, align, count, three_lines


def operations(reference, hypothesis):
    (alignment,) = align([reference.split()], [hypothesis.split()])
    return "".join(token.operation for token in alignment)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", "CCC"),
        ("a b c", "a x c", "CSC"),
        ("a b c", "a c", "CDC"),
        ("a b", "a x b", "CIC"),
        ("a b", "", "DD"),
        ("", "a b", "II"),
        ("", "", ""),
        ("a b c d", "x y c d", "SSCC"),
    ],
)
def test_operations(reference, hypothesis, expected):
    assert operations(reference, hypothesis) == expected


def test_counts_add_up():
    alignments = align([["a", "b"], ["c"]], [["a", "x", "y"], []])
    total = sum(map(count, alignments), Counts())
    assert total == Counts(correct=1, substitutions=1, deletions=1, insertions=1)
    assert total.errors == 3
    assert total.reference_tokens == 3
    assert total.rate_percent == 100.0


def test_the_lines_stand_in_columns():
    reference = ["one", "two", "six", "eight", "nine"]
    (alignment,) = align([reference], [["one", "too", "eight", "nine", "ten"]])
    assert three_lines(alignment).splitlines() == [
        "REF:  one TWO SIX eight nine ***",
        "HYP:  one TOO *** eight nine TEN",
        "Eval:     S   D              I",
    ]


def test_wide_characters_take_two_columns():
    (alignment,) = align([["日", "本"]], [["日"]])
    lines = three_lines(alignment).splitlines()
    assert lines == ["REF:  日 本", "HYP:  日 **", "Eval:    D"]


def test_spaces_between_words_can_be_seen_and_aligned():
    (alignment,) = align([list("a b")], [list("ab")])
    assert [token.operation for token in alignment] == ["C", "D", "C"]
    assert "␣" in three_lines(alignment)
