"""Bringing transcripts and audio files together by utterance id."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from espnet3.utils.errors import DataError

logger = logging.getLogger(__name__)
_LISTED = 3


def unique(pairs: Iterable[tuple[str, str]], *, name: str) -> dict[str, str]:
    """Return ``(utterance id, text)`` pairs as a mapping.

    Raises:
        DataError: when an id occurs twice, or an utterance has no words.
    """
    texts: dict[str, str] = {}
    for utterance_id, text in pairs:
        if utterance_id in texts:
            raise DataError(
                f"{name} holds {utterance_id} twice. Every utterance needs an id of its own: "
                "remove or rename one."
            )
        if not text.strip():
            raise DataError(
                f"{name} has no words for {utterance_id}. Write them, or remove the line."
            )
        texts[utterance_id] = text
    return texts


def pair(
    texts: Mapping[str, str], audio: Mapping[str, Path], *, name: str
) -> dict[str, tuple[str, Path]]:
    """Return text and audio file of every utterance that has a transcript.

    A transcript without audio is an error: what was meant to be learnt or scored is missing.
    Audio without a transcript only earns a warning: corpora ship such files, and nothing can be
    learnt or scored from them.

    Args:
        texts: utterance id → transcript.
        audio: utterance id → audio file.
        name: what the utterances are called in messages, e.g. the split.

    Raises:
        DataError: naming transcripts that have no audio.
    """
    missing = sorted(set(texts) - set(audio))
    if missing:
        raise DataError(
            f"{name}: no audio for the transcript of {some(missing)}. Put the audio in place, or "
            "remove the transcript."
        )
    left_out = sorted(set(audio) - set(texts))
    if left_out:
        logger.warning("%s: left out for want of a transcript: %s", name, some(left_out))
    return {utterance_id: (text, audio[utterance_id]) for utterance_id, text in texts.items()}


def some(names: Iterable[str]) -> str:
    """Return the first names in order, and how many more there are."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:_LISTED])
    more = len(ordered) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown
