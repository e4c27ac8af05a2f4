"""A table of transcripts is read, and each mistake in it is named by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet3.data.transcripts import Transcript, read_transcripts
from espnet3.utils.errors import DataError

SPLITS = ("train", "test")
GOOD = "a-1\tanna\ttrain\tONE TWO\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "transcripts.tsv"


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        f"utterance\tspeaker\tsplit\twords\n{GOOD}\n\n",
        f"\ufeff{GOOD}",
        GOOD.replace("\n", "\r\n"),
    ],
    ids=["plain", "with header and empty lines", "with a byte order mark", "of Windows"],
)
def test_lines_are_read(table: Path, content: str) -> None:
    table.write_bytes(content.encode())
    assert read_transcripts(table, splits=SPLITS) == [Transcript("a-1", "anna", "train", "ONE TWO")]


def test_quotes_are_letters(table: Path) -> None:
    table.write_text('a-1\tanna\ttrain\t"ONE\na-2\tanna\ttrain\tTWO"\n')
    assert [each.words for each in read_transcripts(table, splits=SPLITS)] == ['"ONE', 'TWO"']


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a-2 anna train ONE TWO", r"line 2: four columns separated by tabs .*; it has 1"),
        ("a-2\tanna\ttrain\tONE\tTWO", r"line 2: .* has 5"),
        ("a-2\tanna\ttrain\t ", r"line 2: 'words' is empty"),
        ("a-2\tanna\ttrian\tONE", r"line 2: the split is 'trian'.*Did you mean 'train'"),
        ("a-1\tanna\ttrain\tONE", r"line 2: 'a-1' stands in line 1 already"),
        ("id\tspeaker\tset\ttext", r"line 2: the split is 'set'; it may be one of: train, test"),
    ],
)
def test_a_mistake_is_named_by_its_line(table: Path, line: str, message: str) -> None:
    table.write_text(f"{GOOD}{line}\n")
    with pytest.raises(DataError, match=message):
        read_transcripts(table, splits=SPLITS)


def test_a_table_that_is_missing_or_of_another_encoding_is_named(table: Path) -> None:
    with pytest.raises(DataError, match=r"transcripts\.tsv cannot be read: No such file"):
        read_transcripts(table, splits=SPLITS)
    table.write_bytes("a-1\tanna\ttrain\tGRÖSSE\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a text in UTF-8"):
        read_transcripts(table, splits=SPLITS)
