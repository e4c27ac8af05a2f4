"""docs/launching.md: every command of it, and what it shows, as far as it needs no cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from launcher.status import chain_status
from tests.docs.test_documents import REPOSITORY, record, write_files

_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
RECIPE = Path("egs3", "my_corpus", "asr")


def sections() -> dict[str, str]:
    """Return the text of the document by its headings."""
    _, *parts = _HEADING.split((REPOSITORY / "docs" / "launching.md").read_text())
    return dict(zip(parts[::2], parts[1::2], strict=True))


def commands(heading: str) -> list[str]:
    blocks = _BLOCK.findall(sections()[heading])
    return [line for block in blocks for line in block.splitlines()]


def type_command(line: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Type a command of the document; return what it printed."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_workplace(folder: Path) -> Path:
    """Write the recipe that the document speaks of, its settings, and recordings."""
    for document in ("adding-a-recipe.md", "launching.md"):
        write_files(document, folder)
    record(folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    folder = tmp_path / "my work"
    folder.mkdir()
    return make_workplace(folder)


def test_every_command_is_in_a_section_that_a_test_types() -> None:
    assert [heading for heading in sections() if commands(heading)] == [
        "On this machine",
        "One stage in this terminal",
        "SLURM",  # tests/cluster/test_launching_document.py
        "One launch per folder",
    ]


@pytest.mark.slow
def test_on_this_machine(workplace: Path) -> None:
    launched, status, cancel, followed = commands("On this machine")
    shown = type_command(launched, workplace)
    ids = r"^  create_dataset   job \d+\n  train_tokenizer  job \d+  after create_dataset\n"
    assert re.search(ids, shown, re.MULTILINE)
    assert "They go on by themselves. To see how they are, and to stop them:" in shown
    assert "collect_stats" in type_command(status, workplace)
    assert "cancelling" in type_command(cancel, workplace)
    (launch,) = (workplace / RECIPE / ".launches").iterdir()
    assert all(each.has_ended for each in chain_status(LaunchRecords(launch)))
    shown = type_command(followed, workplace)
    assert re.search("^collect_stats +done", shown, re.MULTILINE)


@pytest.mark.slow
def test_one_stage_in_this_terminal(workplace: Path) -> None:
    (command,) = commands("One stage in this terminal")
    shown = type_command(command, workplace)
    assert "─ collect_stats ─" in shown
    assert re.search("^collect_stats +done", shown, re.MULTILINE)
    assert (workplace / RECIPE / "exp" / "training" / "stats" / "collect_stats.out").is_file()


@pytest.mark.slow
def test_one_launch_per_folder(workplace: Path) -> None:
    for command in commands("One launch per folder"):
        type_command(command, workplace)
    made = sorted((workplace / RECIPE / ".launches").iterdir())
    for launch in made:
        type_command(f"python -m launcher wait {shlex.quote(str(launch))}", workplace)
