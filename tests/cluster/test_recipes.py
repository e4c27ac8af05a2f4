"""A real recipe, every stage a job in the pinned image: on SLURM, and on this machine."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.checkouts import REPOSITORY, make_checkout
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.rehearsed import Rehearsal, Slurm
from tests.conftest import lacks

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
STAGES = ("create_dataset", "train_tokenizer", "collect_stats", "train", "infer", "measure")
# A tenth of the quick training: the digits are mostly recognised, and the figures are figures.
SHORT = "defaults: [training_quick]\nexp_tag: {name}\ntrainer: {{max_steps: {steps}}}\n"


@dataclass(frozen=True)
class Checkout:
    """A clone of this project, with the launcher and its recipes, as a person works in one."""

    root: Path
    archive: Path
    image: CpuImage

    @property
    def recipe(self) -> Path:
        return self.root / "egs3" / "fsdd" / "asr"

    def launch(
        self, name: str, *arguments: str, steps: int, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Launch the recipe's stages as the experiment ``name``."""
        config = self.recipe / "conf" / f"{name}.yaml"
        config.write_text(SHORT.format(name=name, steps=steps))
        command = [sys.executable, "-m", "launcher", "--recipe", str(self.recipe), *arguments]
        command += ["--training_config", f"conf/{name}.yaml", "--stages", *STAGES]
        command += [
            f"images_lock='{self.image.lock_file}'",
            f"image_cache='{self.image.cache_dir}'",
        ]
        command += [f"env.FSDD_ARCHIVE='{self.archive}'"]
        return subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, **environment, "PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def metadata(self, name: str, stage: str) -> dict[str, Any]:
        """Return the metadata that a stage left in its log folder."""
        folders = {
            "create_dataset": self.recipe / "data",
            "train_tokenizer": self.recipe / "data" / "tokenizer" / "word_0",
            "collect_stats": self.recipe / "exp" / name / "stats",
            "train": self.recipe / "exp" / name,
            "infer": self.recipe / "exp" / name / "inference",
            "measure": self.recipe / "exp" / name / "inference",
        }
        found: dict[str, Any] = json.loads((folders[stage] / f"{stage}.metadata.json").read_text())
        return found

    def wait(self, done: subprocess.CompletedProcess[str], environment: Mapping[str, str]) -> str:
        """Wait until every stage of a launch has ended; return what ``status`` shows then."""
        directory = re.search(r"^launch (.+)$", done.stdout, re.MULTILINE)[1]
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            shown = subprocess.run(
                [sys.executable, "-m", "launcher", "status", directory],
                cwd=self.root,
                env={**os.environ, **environment, "PYTHONPATH": str(self.root)},
                capture_output=True,
                text=True,
                timeout=60,
            ).stdout
            if not re.search(r"  (pending|running) ", shown):
                return shown
            time.sleep(1)
        raise AssertionError(f"not at an end within 300 s:\n{shown}")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, cpu_image: CpuImage) -> Checkout:
    """Return a checkout with what is in this tree, committed or not."""
    root = make_checkout(tmp_path_factory.mktemp("a checkout") / "espnet3 launcher")
    shared = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared"))
    archive = Path(os.environ.get("FSDD_ARCHIVE", shared / "data" / "fsdd.tar.xz"))
    if not archive.exists():
        lacks("no FSDD archive; set FSDD_ARCHIVE")
    return Checkout(root, archive, cpu_image)


def word_error_rates(shown: str) -> str:
    return re.search(r"^measure +(WER .+)$", shown, re.MULTILINE)[1]


def test_slurm_runs_every_stage_in_the_pinned_image_under_docker(
    checkout: Checkout, slurm: Slurm
) -> None:
    name = "slurm_docker"
    # The whole quick training: what is recognised here is as good as without a container.
    done = checkout.launch(
        name,
        *("--cluster", "slurm", "--container", "docker"),
        *("resources.mem_gb=4", "stages.train.cpus_per_task=2"),
        steps=560,
        environment=slurm.environment,
    )
    assert done.returncode == 0, done.stderr
    ids = re.findall(r"^  (\w+) +job (\d+)", done.stdout, re.MULTILINE)
    assert [stage for stage, _ in ids] == list(STAGES)
    for (_, before), (_, after) in itertools.pairwise(ids):
        shown = slurm.run("scontrol", "show", "job", after)
        assert f"Dependency=afterok:{before}" in shown
        assert f"JobName={name}." in shown
    shown = checkout.wait(done, slurm.environment)
    assert len(re.findall(r"  done ", shown)) == len(STAGES), shown
    wer = float(re.search(r"test ([\d.]+) %", word_error_rates(shown))[1])
    assert wer <= 10.0
    for stage, (_, job_id) in zip(STAGES, ids, strict=True):
        job = checkout.metadata(name, stage)["job"]
        assert (job["cluster"], job["job_id"], job["runtime"]) == ("slurm", job_id, "docker")
        assert job["image_verified"] == job["image"]["digest"]
        assert job["exit_code"] == 0
        assert job["node"] in slurm.nodes


def test_slurm_runs_every_stage_in_the_pinned_image_under_apptainer(
    checkout: Checkout, slurm: Slurm
) -> None:
    name = "slurm_apptainer"
    done = checkout.launch(
        name,
        *("--cluster", "slurm", "--container", "apptainer"),
        steps=60,
        environment=slurm.environment,
    )
    assert done.returncode == 0, done.stderr
    shown = checkout.wait(done, slurm.environment)
    states = dict(re.findall(r"^(\w+) +(done|kept) ", shown, re.MULTILINE))
    assert list(states) == list(STAGES), shown
    assert "WER" in word_error_rates(shown)
    job = checkout.metadata(name, "train")["job"]
    assert job["runtime_version"].startswith("apptainer 1.")
    assert job["image_verified"] == job["image"]["digest"]


def test_this_machine_goes_on_in_docker_when_the_launcher_is_gone(
    checkout: Checkout, rehearsal: Rehearsal
) -> None:
    name = "local_docker"
    done = checkout.launch(
        name,
        *("--cluster", "local", "--container", "docker"),
        steps=60,
        environment=rehearsal.environment,
    )
    assert done.returncode == 0, done.stderr  # and with that the launching process is gone
    shown = checkout.wait(done, rehearsal.environment)
    states = dict(re.findall(r"^(\w+) +(done|kept) ", shown, re.MULTILINE))
    assert list(states) == list(STAGES), shown
    assert "WER" in word_error_rates(shown)
    assert checkout.metadata(name, "train")["job"]["cluster"] == "local"
