"""docs/recording.md is what terminals show: launch, close, status, kill a node, resume, report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.checkouts import REPOSITORY, make_checkout
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.recording import PAGE, WRITE, blocks_of, record, stable, with_blocks
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def checkout(tmp_path: Path, slurm: Slurm, cpu_image: CpuImage) -> Iterator[Path]:
    """Return a checkout whose cpu image is pinned. Afterwards its jobs are gone, nodes are back."""
    root = make_checkout(tmp_path / "espnet3-launcher", images_lock=cpu_image.lock_file)
    (root / ".venv").symlink_to(sys.prefix)
    yield root
    shown = slurm.run("squeue", "--noheader", "--format=%i|%Z")
    jobs = [line.partition("|") for line in shown.splitlines()]
    for job in [job for job, _, where in jobs if where.startswith(f"{root}/")]:
        slurm.run("scancel", job)
    up = REPOSITORY / "tests" / "cluster" / "rehearsal" / "up.py"
    subprocess.run([sys.executable, str(up)], check=True, timeout=120)
    until(lambda: is_idle(slurm), 60, "that all nodes are idle")


def is_idle(slurm: Slurm) -> bool:
    states = slurm.run("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
    for node in {line.split()[0] for line in states if "down" in line}:
        slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
    return all(line.endswith(" idle") for line in states)


def test_the_page_is_what_terminals_show(checkout: Path, slurm: Slurm) -> None:
    path = f"{checkout}/.venv/bin:{slurm.environment['PATH']}"
    recorded = record(checkout, {**os.environ, **slurm.environment, "PATH": path})
    page = PAGE.read_text()
    if os.environ.get(WRITE):
        page = with_blocks(page, recorded)
        PAGE.write_text(page)
    shown = [line for block in blocks_of(page) for line in stable(block)]
    assert [line for block in recorded for line in stable(block)] == shown
    assert str(checkout) not in page
    report = max((checkout / ".launches").glob("*/report.html")).read_text()
    assert re.search(r">WER</th>.*>train</th><td>0.0 %</td>", report, re.DOTALL)
    assert '<polyline class="curve ' in report


def test_numbers_of_another_day_are_the_same_and_other_words_are_not() -> None:
    ran = "train  done   8  n1     0.7 s  7.2 s  train.log\n      WER train 0.0 %, test 140.0 %\n"
    later = "train  done  102  n2     12 s   1:02  train.log\n      WER train 0.0 %, test 90.0 %\n"
    assert stable(ran) == stable(later)
    assert stable(ran) != stable(later.replace("done", "kept"))
    assert stable(ran) != stable(later.replace("train 0.0", "train 20.0"))
    assert stable("cpu@sha256:1ef2abc0812b…") == stable("cpu@sha256:c440d35a9b1c…")
