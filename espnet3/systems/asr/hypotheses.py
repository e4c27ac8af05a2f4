"""The files that ``infer`` leaves of a test set, and reading them back.

``hyp.txt`` and ``ref.txt`` hold a line ``utt_id text`` per utterance, as Kaldi's do;
``hyp.jsonl`` holds what else is known of each; ``summary.json`` the figures of the whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet3.utils.errors import DataError
from espnet3.utils.files import atomic_directory


@dataclass
class Candidate:
    """One of an utterance's hypotheses: its text and its natural log-probability."""

    text: str
    score: float


@dataclass
class Recognised:
    """One utterance as it was recognised.

    Attributes:
        utt_id: the utterance.
        text: the best hypothesis.
        score: its natural log-probability.
        tokens: its tokens as the tokenizer writes them.
        token_starts_s: for each token, when its first output frame begins, in seconds.
        nbest: the best hypotheses, ``text`` included.
        audio_s: length of the audio.
        decode_s: the utterance's share, by length, of its batch's decoding time.
        speaker: where the data knows it.
        reference: the transcript.
    """

    utt_id: str
    text: str
    score: float
    tokens: list[str]
    token_starts_s: list[float]
    nbest: list[Candidate]
    audio_s: float
    decode_s: float
    speaker: str | None
    reference: str


@dataclass
class Transcripts:
    """What is scored: texts by utterance id, and speakers where they are known."""

    references: dict[str, str]
    hypotheses: dict[str, str]
    speakers: dict[str, str] = field(default_factory=dict)


def write_recognised(
    folder: Path, recognised: Iterable[Recognised], summary: Mapping[str, Any]
) -> list[Path]:
    """Write a test set's files to ``folder`` as a whole; return their paths."""
    utterances = list(recognised)
    rows = [asdict(utterance) for utterance in utterances]
    for row in rows:
        del row["reference"]
    content = {
        "hyp.txt": "".join(f"{each.utt_id} {each.text}".rstrip() + "\n" for each in utterances),
        "ref.txt": "".join(f"{each.utt_id} {each.reference}\n" for each in utterances),
        "hyp.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False) + "\n",
    }
    with atomic_directory(folder) as partial:
        for name, text in content.items():
            (partial / name).write_text(text, encoding="utf-8")
    return [folder / name for name in content]


def read_texts(path: Path) -> dict[str, str]:
    """Return ``{utt_id: text}`` of a file with a line ``utt_id text`` per utterance.

    Raises:
        DataError: the file is missing or no text, or an id stands in it twice.
    """
    lines = _lines(path)
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        utt_id, _, text = line.strip().partition(" ")
        if not utt_id:
            continue
        if utt_id in texts:
            raise DataError(f"{path}, line {number}: '{utt_id}' is there a second time.")
        texts[utt_id] = text.strip()
    return texts


def read_speakers(path: Path) -> dict[str, str]:
    """Return ``{utt_id: speaker}`` of a ``hyp.jsonl``; empty when there is no such file.

    Raises:
        DataError: a line is not what ``infer`` writes.
    """
    speakers: dict[str, str] = {}
    for number, line in enumerate(_lines(path) if path.exists() else [], start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            utt_id, speaker = row["utt_id"], row.get("speaker")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path}, line {number} is not what infer writes. Remove the folder and run infer "
                "again."
            ) from None
        if speaker:
            speakers[str(utt_id)] = str(speaker)
    return speakers


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines: a text may hold U+2028 and its like.
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Run the stage infer."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no UTF-8 text ({error}). Remove the folder and run infer again."
        ) from None
