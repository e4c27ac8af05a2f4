"""Transcripts and audio are brought together by id."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from espnet3.data.pairing import pair, unique
from espnet3.utils.errors import DataError


def test_pairs() -> None:
    paired = pair({"a": "ONE"}, {"a": Path("a.wav")}, name="train")
    assert paired == {"a": ("ONE", Path("a.wav"))}


def test_transcript_without_audio_is_an_error() -> None:
    texts = dict.fromkeys("abcde", "ONE")
    with pytest.raises(DataError, match="train: no audio for the transcript of a, c, d and 1 more"):
        pair(texts, {"b": Path("b.wav")}, name="train")


def test_audio_without_transcript_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        paired = pair({"a": "ONE"}, {"a": Path("a.wav"), "b": Path("b.wav")}, name="train")
    assert list(paired) == ["a"]
    assert "left out for want of a transcript: b" in caplog.text


def test_id_that_occurs_twice() -> None:
    with pytest.raises(DataError, match=r"words\.txt holds a twice"):
        unique([("a", "ONE"), ("a", "TWO")], name="words.txt")


def test_line_without_words() -> None:
    with pytest.raises(DataError, match=r"words\.txt has no words for a"):
        unique([("a", " ")], name="words.txt")
