"""Reading a table of transcripts that a person wrote, its mistakes named by their line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet3.utils.errors import DataError, nearest


class Transcript(NamedTuple):
    """One line of the table."""

    utterance: str
    speaker: str
    split: str
    words: str


def read_transcripts(table: Path, *, splits: Sequence[str]) -> list[Transcript]:
    """Return the lines of a table of utterance, speaker, split and words, separated by tabs.

    A first line of just these four names is skipped, and so are empty lines.

    Args:
        table: the file, in UTF-8.
        splits: the names that may stand in the column ``split``.

    Raises:
        DataError: naming the line that cannot be used, and what is wrong with it.
    """
    transcripts: list[Transcript] = []
    seen: dict[str, int] = {}
    for number, line in _lines(table):
        place = f"{table}, line {number}"
        fields = [field.strip() for field in line.split("\t")]
        if number == 1 and fields == list(Transcript._fields):
            continue
        if len(fields) != len(Transcript._fields):
            raise DataError(
                f"{place}: four columns separated by tabs are expected "
                f"({', '.join(Transcript._fields)}); it has {len(fields)}: {line!r}."
            )
        transcript = Transcript(*fields)
        for name, value in transcript._asdict().items():
            if not value:
                raise DataError(f"{place}: '{name}' is empty. Fill it in, or remove the line.")
        if transcript.split not in splits:
            raise DataError(
                f"{place}: the split is '{transcript.split}'; it may be one of: "
                f"{', '.join(splits)}.{nearest(transcript.split, list(splits))}"
            )
        if transcript.utterance in seen:
            raise DataError(
                f"{place}: '{transcript.utterance}' stands in line {seen[transcript.utterance]} "
                "already. Every utterance needs a name of its own."
            )
        seen[transcript.utterance] = number
        transcripts.append(transcript)
    return transcripts


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not empty."""
    try:
        with table.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except OSError as error:
        raise DataError(f"The transcripts {table} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not a text in UTF-8 ({error}). Save it as such.") from error
