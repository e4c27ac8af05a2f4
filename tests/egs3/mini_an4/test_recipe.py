"""The default recipe from nothing to its figures, from a folder whose name breaks careless code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_training_set_is_recognised(hostile_path: Path) -> None:
    recipe = hostile_path / "mini_an4"
    ignored = shutil.ignore_patterns("data", "exp", "logs", "__pycache__")
    shutil.copytree(REPOSITORY / "egs3" / "mini_an4" / "asr", recipe, ignore=ignored)
    configs = [
        argument
        for role in ("training", "inference", "metrics")
        for argument in (f"--{role}_config", f"conf/{role}.yaml")
    ]
    done = subprocess.run(
        [sys.executable, str(recipe / "run.py"), *configs],
        cwd=hostile_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    inference_dir = recipe / "exp" / "training" / "inference"
    figures = json.loads((inference_dir / "measure.metadata.json").read_text())["results"]
    assert figures["train"] == {"WER": 0.0, "CER": 0.0}
    assert figures["test"]["WER"] > 0  # it has words that were never heard
    hypotheses = (inference_dir / "train" / "hyp.txt").read_text().splitlines()
    assert "cen8-fbbh-b MARCH THIRD NINETEEN TWENTY EIGHT" in hypotheses
    train = json.loads((recipe / "exp" / "training" / "train.metadata.json").read_text())
    assert train["elapsed_s"] < 40
