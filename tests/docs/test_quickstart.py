"""docs/quickstart.md and the README's example of a stage, in a copy of the project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.test_documents import REPOSITORY
from tests.docs.test_launching import type_command

_SH = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(heading: str) -> list[str]:
    """Return the section's commands that the launcher is given, in their order."""
    document = (REPOSITORY / "docs" / "quickstart.md").read_text()
    section = document.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for block in _SH.findall(section) for line in block.splitlines()]


def copy_of_the_default_recipe(folder: Path) -> Path:
    """Return a folder that holds mini_an4 and its verified source, if that was fetched."""
    recipe = folder / "egs3" / "mini_an4" / "asr"
    shutil.copytree(
        REPOSITORY / "egs3" / "mini_an4" / "asr",
        recipe,
        ignore=shutil.ignore_patterns("data", "exp", "logs", ".launches", "__pycache__"),
    )
    return recipe


@pytest.mark.slow
def test_on_this_machine(tmp_path: Path) -> None:
    made, *typed = commands("On this machine")
    assert made == "make run"  # a step of continuous integration
    recipe = copy_of_the_default_recipe(tmp_path / "my work")
    launched, waited, status, logs, explained = (type_command(line, recipe) for line in typed)
    assert re.search(r"^  collect_stats +job \d+  after train_tokenizer$", launched, re.MULTILINE)
    for table in (waited, status):
        assert re.search(r"^collect_stats +done", table, re.MULTILINE)
    assert "utterances" in logs
    for stage in ("create_dataset", "train_tokenizer", "collect_stats"):
        assert re.search(rf"^ *{stage} +kept", explained, re.MULTILINE)


def test_the_readmes_stage(tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    imports = "from espnet3.systems.asr.system import ASRSystem\n"
    (tmp_path / "it.py").write_text(f"{imports}{example}print(MySystem().count_words())\n")
    assert type_command("python it.py", tmp_path) == "None\n"
