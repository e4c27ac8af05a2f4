"""Write the pages."""

from __future__ import annotations

from pathlib import Path

from tests.docs.reference import PAGES

for page, make in PAGES.items():
    (Path(__file__).resolve().parents[3] / "docs" / page).write_text(make())
