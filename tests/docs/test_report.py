"""docs/report.md: its commands, typed after a launch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_documents import REPOSITORY, record, write_files
from tests.docs.test_launching import type_command

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    write_files("adding-a-recipe.md", folder)
    record(folder)
    recipe = folder / "egs3" / "my_corpus" / "asr"
    type_command("python -m launcher --container none --stages create_dataset --follow", recipe)
    blocks = _BLOCK.findall((REPOSITORY / "docs" / "report.md").read_text())
    assert [language for language, _ in blocks] == ["sh", "python"]
    shown = type_command(blocks[0][1], recipe)
    assert re.fullmatch(r"report \S*\.launches/\S+-my_corpus-asr/report\.html\n", shown)
    (recipe / "it.py").write_text(blocks[1][1])
    assert type_command("python it.py", recipe) == "report.html\n"
    assert (recipe / "report.html").read_text().count('<svg id="timeline"') == 1
