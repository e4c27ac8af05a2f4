"""The site: it is built strictly, and nothing of it comes from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_documents import REPOSITORY


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", *options],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(REPOSITORY, "--site-dir", str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    names = {page.relative_to(tmp_path / "site").with_suffix(".md") for page in pages}
    documents = {path.relative_to(REPOSITORY / "docs") for path in find_documents()}
    assert names == {*documents, Path("404.md")}
    loaded = r'<(?:script|img|iframe|link)\b[^>]*(?:src|href)="?(https?:)?//'
    for page in pages:
        assert not re.search(loaded, page.read_text()), page


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake", ["[x](nowhere.md)", "[x](launching.md#nowhere)", "[x](/launching.md)"]
)
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, mistake: str) -> None:
    (tmp_path / "docs").mkdir()
    config = (REPOSITORY / "mkdocs.yml").read_text().partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(config)
    (tmp_path / "docs" / "launching.md").write_text("# Launching\n")
    (tmp_path / "docs" / "index.md").write_text(f"{mistake}\n")
    assert build(tmp_path).returncode == 1


def find_documents() -> list[Path]:
    return sorted((REPOSITORY / "docs").rglob("*.md"))
