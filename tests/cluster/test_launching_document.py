"""The section on SLURM of docs/launching.md, typed on the rehearsal cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.rehearsed import Slurm
from tests.docs.test_launching import RECIPE, commands, make_workplace, sections, type_command

pytestmark = pytest.mark.cluster


def test_slurm(tmp_path: Path, slurm: Slurm) -> None:
    folder = make_workplace(tmp_path)
    dry_run, launched, status, followed = commands("SLURM")
    shown = type_command(dry_run, folder, slurm.environment)
    example = re.search(r"^train, after create_dataset\n(.*?)^…$", sections()["SLURM"], re.M | re.S)
    assert example is not None
    for line in example[1].splitlines():
        assert line in shown
    shown = type_command(launched, folder, slurm.environment)
    assert re.search(r"^  train +job \d+  after create_dataset$", shown, re.MULTILINE)
    assert "train" in type_command(status, folder, slurm.environment)
    shown = type_command(followed, folder, slurm.environment)
    assert re.search("^train_tokenizer +(done|kept)", shown, re.MULTILINE)
    for launch in (folder / RECIPE / ".launches").iterdir():
        type_command(f"python -m launcher cancel '{launch}'", folder, slurm.environment)
