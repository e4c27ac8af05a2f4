"""What docs/quickstart.md and the README submit to SLURM, typed on the rehearsal cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.rehearsed import Slurm
from tests.docs.test_documents import REPOSITORY
from tests.docs.test_launching import type_command
from tests.docs.test_quickstart import commands, copy_of_the_default_recipe

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_on_a_cluster(tmp_path: Path, slurm: Slurm) -> None:
    recipe = copy_of_the_default_recipe(tmp_path / "my work")
    dry_run, followed = (
        type_command(line, recipe, slurm.environment) for line in commands("On a cluster")
    )
    assert "--dependency=afterok:JOB-ID-OF-create_dataset" in dry_run
    assert re.search(r"^train_tokenizer +done", followed, re.MULTILINE)


def test_the_readme(tmp_path: Path, slurm: Slurm) -> None:
    """Its images are those of docs/containers.md, its launch in one is a test of recipes'."""
    section = (REPOSITORY / "README.md").read_text().partition("## On a cluster")[2]
    blocks = re.findall(r"^```sh\n(.*?)^```", section.partition("\n## ")[0], re.M | re.S)
    images, launch, dry_run = blocks
    document = (REPOSITORY / "docs" / "containers.md").read_text()
    assert all(line in document for line in images.splitlines())
    assert launch == "python -m launcher --cluster slurm --container apptainer\n"
    recipe = copy_of_the_default_recipe(tmp_path / "my work")
    line = f"{dry_run.strip()} --container none"
    shown = type_command(line, recipe, slurm.environment)
    assert "#SBATCH --gpus-per-node=2" in shown
    assert "#SBATCH --time=600" in shown
