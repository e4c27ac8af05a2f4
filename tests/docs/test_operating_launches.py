"""docs/operating-launches.md: its commands in their order, and that it names every field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from launcher.view import LaunchView
from tests.docs.test_documents import REPOSITORY, record, write_files
from tests.docs.test_launching import type_command
from tests.launcher.test_view import make_launch

DOCUMENT = (REPOSITORY / "docs" / "operating-launches.md").read_text()


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    write_files("adding-a-recipe.md", folder)
    record(folder)
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines()]
    shown = [type_command(line, folder) for line in commands]
    _, waited, status, told, listed, logs, cancelled, completion, doctor, clean = shown
    for table in (waited, status):
        assert re.search("^train_tokenizer +done", table, re.MULTILINE)
    assert json.loads(told)["state"] == "done"
    assert re.search(r" local +done +\d", listed, re.MULTILINE)
    assert 1 <= logs.count("\n") <= 5
    assert "train_tokenizer had ended already" in cancelled
    assert completion.startswith("# Completion of")
    assert doctor.splitlines()[-1].startswith("0 fail")
    assert "nothing to remove" in clean or "can be removed" in clean


def test_every_field_of_the_json_is_named(tmp_path: Path) -> None:
    told = LaunchView.of(make_launch(tmp_path)).to_record()
    named = set(re.findall(r"`(?:stages\[\]\.)?(\w+)`", DOCUMENT.partition("## JSON")[2]))
    assert {*told, *told["stages"][0]} - {"stages"} <= named
