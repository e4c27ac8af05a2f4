"""The report in a browser: opened from its file, it shows the timeline and the error rates."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm_launches import REPOSITORY, write_recipe
from tests.conftest import HOSTILE_NAME, lacks

pytestmark = pytest.mark.cluster
# Neither a sandbox, which root cannot have, nor any traffic of the browser's own.
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
CURVES = "step,train_loss,valid_loss\n1,90,\n2,30,\n2,,40\n3,5,\n4,2,\n4,,4\n"


def rendered(file: Path, profile: Path) -> str:
    """Open a file in a headless Chromium; return the document as it stands there."""
    browser = shutil.which("chromium")
    if browser is None:
        lacks("no chromium; as root: make cluster-up")
        raise AssertionError
    done = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def test_a_browser_shows_timeline_curves_and_error_rates(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / HOSTILE_NAME, ("report", "score", "fail"))
    curves = recipe / "exp" / "tiny" / "metrics" / "from_0" / "metrics.csv"
    curves.parent.mkdir(parents=True)
    curves.write_text(CURVES)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for words in (
        ["--container", "none", "--follow"],
        ["report"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *words],
            cwd=recipe,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    page = rendered(recipe / done.stdout.strip().removeprefix("report "), tmp_path / "profile")
    timeline = re.search(r'<svg id="timeline".*?</svg>', page, re.DOTALL)[0]
    for stage, state in (("report", "done"), ("score", "done"), ("fail", "failed")):
        assert f">{stage}</text>" in timeline
        assert f'class="bar {state}"' in timeline
    figures = re.search(r'<div id="results">.*?</section>', page, re.DOTALL)[0]
    assert re.search(r">WER</th>.*>test</th><td>0.0 %</td>", figures, re.DOTALL)
    assert len(re.findall(r'<polyline class="curve ', page)) == 2
    assert '<h2>fail failed</h2><p class="reason">exit status 3</p><pre>' in page
    assert not re.search(r'\b(src|href)="(?:[a-z]+:)?//', page)
