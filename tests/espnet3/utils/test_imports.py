"""What start-up may load: a person who types ``--help`` must not wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "lightning", "lhotse", "omegaconf", "hydra", "numpy", "sentencepiece", "yaml"}


@pytest.mark.parametrize(
    "module",
    [
        "egs3.TEMPLATE.asr.run",
        "espnet3.systems.base.system",
        "espnet3.systems.asr.system",
        "espnet3.utils.config_utils",
        "espnet3.utils.logging_utils",
    ],
)
def test_start_up_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(loaded.stdout.split())
