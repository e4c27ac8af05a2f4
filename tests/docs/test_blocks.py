"""Every block of the documents is run by something: no command stands there unproved.

``RUN_BY`` says by page and section which test runs its ``sh`` and ``python`` blocks, and those of
``text`` that show a session, where commands stand after ``$``. A command of a README may also be a
step of continuous integration, or stand in a page whose commands are run.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.docs.test_documents import REPOSITORY

_FENCE = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<content>.*?)^```$', re.M | re.S
)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_ALL = "*"
_LAUNCHING = "tests/docs/test_launching.py::"

# {page: {section: test}}; "*" is every section of the page.
RUN_BY = {
    "docs/adding-a-recipe.md": {_ALL: "tests/docs/test_documents.py::test_adding_a_recipe"},
    "docs/adding-a-stage.md": {_ALL: "tests/docs/test_documents.py::test_adding_a_stage"},
    "docs/containers.md": {_ALL: "tests/cluster/test_images.py::test_the_document_s_commands_work"},
    "docs/launching.md": {
        "On this machine": f"{_LAUNCHING}test_on_this_machine",
        "One stage in this terminal": f"{_LAUNCHING}test_one_stage_in_this_terminal",
        "One launch per folder": f"{_LAUNCHING}test_one_launch_per_folder",
        "SLURM": "tests/cluster/test_launching_document.py::test_slurm",
    },
    "docs/operating-launches.md": {
        _ALL: "tests/docs/test_operating_launches.py::test_the_commands"
    },
    "docs/quickstart.md": {
        "On this machine": "tests/docs/test_quickstart.py::test_on_this_machine",
        "On a cluster": "tests/cluster/test_quickstart.py::test_on_a_cluster",
    },
    "docs/recording.md": {
        _ALL: "tests/cluster/test_recording.py::test_the_page_is_what_terminals_show"
    },
    "docs/rehearsal.md": {_ALL: "tests/cluster/test_rehearsal.py::test_the_document_is_right"},
    "docs/report.md": {_ALL: "tests/docs/test_report.py::test_the_report"},
    "docs/resuming.md": {_ALL: "tests/docs/test_resuming.py::test_resuming"},
    "README.md": {
        "On a cluster, in a container": "tests/cluster/test_quickstart.py::test_the_readme",
        "Recognise digits": "tests/e2e/test_fsdd.py::"
        "test_digits_are_recognised_and_unchanged_stages_kept",
        "Add a stage, add a recipe": "tests/docs/test_quickstart.py::test_the_readmes_stage",
    },
    "egs3/fsdd/asr/README.md": {
        "The data": "tests/e2e/test_fsdd.py::test_digits_are_recognised_and_unchanged_stages_kept",
        "Run it": "tests/e2e/test_fsdd.py::test_the_figure_of_an_unseen_speaker_is_reported",
    },
}
# Wrappers of pytest itself: what each selects is held by tests/launcher/test_make.py.
OF_PYTEST = re.compile(r"make (test|faults|targets|test-upstream)\b.*")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the section that it stands in."""

    page: str
    section: str
    language: str
    title: str | None
    content: str


def documents() -> list[Path]:
    own = (path.name for path in REPOSITORY.glob("*.md"))
    pages = [*(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "egs3").rglob("README.md")]
    return sorted([*pages, *(REPOSITORY / name for name in own)])


def is_code(block: Block) -> bool:
    is_session = block.language == "text" and block.content.startswith("$ ")
    return (block.language in ("sh", "python") or is_session) and not block.title


def blocks() -> list[Block]:
    found = []
    for path in documents():
        text = path.read_text()
        inside = [(each.start(), each.end()) for each in _FENCE.finditer(text)]
        headings = [
            (each.start(), each[1])
            for each in _HEADING.finditer(text)
            if not any(begin < each.start() < end for begin, end in inside)
        ]
        for each in _FENCE.finditer(text):
            section = [title for begin, title in headings if begin < each.start()][-1]
            page = str(path.relative_to(REPOSITORY))
            found.append(Block(page, section, each["language"], each["title"], each["content"]))
    return found


BLOCKS = blocks()
CODE = [each for each in BLOCKS if is_code(each)]


def is_run(block: Block) -> bool:
    by_section = RUN_BY.get(block.page, {})
    if _ALL in by_section or block.section in by_section:
        return True
    steps = re.findall(r"^(?:\w+=\S+ )?step (.*)$", (REPOSITORY / ".ci" / "run").read_text(), re.M)
    lines = [line.partition("  #")[0].strip() for line in block.content.splitlines()]
    return all(line in steps or OF_PYTEST.fullmatch(line) for line in lines)


@pytest.mark.parametrize("block", CODE, ids=lambda block: f"{block.page}: {block.section}")
def test_a_block_is_run(block: Block) -> None:
    assert is_run(block), f"nothing runs this; name its test in RUN_BY:\n{block.content}"


def test_what_is_said_to_run_blocks_is_there() -> None:
    for page, by_section in RUN_BY.items():
        sections = {each.section for each in CODE if each.page == page}
        assert sections, page
        assert set(by_section) - {_ALL} <= sections, page
        for test in by_section.values():
            path, _, name = test.partition("::")
            tree = ast.parse((REPOSITORY / path).read_text())
            named = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
            assert name in named, test


def test_a_block_that_nothing_runs_is_found() -> None:
    assert not is_run(Block("docs/new.md", "New", "sh", None, "python -m launcher new\n"))
    assert not is_run(Block("docs/launching.md", "Secrets", "sh", None, "make run\nmake x\n"))
    assert is_run(Block("docs/new.md", "New", "sh", None, "make run\n"))
    session = Block("docs/new.md", "New", "text", None, "$ python -m launcher\nlaunch\n")
    assert is_code(session)
    assert not is_run(session)


def test_blocks_are_of_languages_with_a_meaning_and_can_be_read() -> None:
    for block in BLOCKS:
        assert block.language in {"sh", "python", "yaml", "json", "text"}, block
        if block.language == "yaml":
            assert yaml.safe_load(block.content) is not None, block
        if block.language == "json":
            json.loads(block.content)
        if block.language == "python":
            ast.parse(block.content)
