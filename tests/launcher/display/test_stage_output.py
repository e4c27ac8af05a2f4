"""Where the last lines of a stage's output begin."""

from __future__ import annotations

import io

import pytest

from launcher.display import stage_output


@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 16])
@pytest.mark.parametrize("text", [b"", b"one", b"one\n", b"one\ntwo\nthree", b"one\n\ntwo\n"])
@pytest.mark.parametrize("num_lines", [0, 1, 2, 9])
def test_as_tail_has_it(
    num_lines: int, text: bytes, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_output, "_CHUNK_BYTES", chunk_bytes)
    lines = text.splitlines(keepends=True)
    expected = b"".join(lines[len(lines) - min(num_lines, len(lines)) :])
    assert text[stage_output._start(io.BytesIO(text), num_lines) :] == expected


def test_all_of_it_by_default() -> None:
    assert stage_output._start(io.BytesIO(b"one\ntwo\n"), None) == 0
