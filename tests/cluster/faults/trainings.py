"""Real trainings on the rehearsal's SLURM, to be disturbed in the middle.

What comes out is what an undisturbed training gives: the same steps, the same loss to the last bit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.clusters.slurm import Settings, SlurmCluster
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus, chain_status
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import until
from tests.conftest import REPOSITORY

CONFIG = """\
defaults: [training]
exp_tag: {name}
trainer: {{max_steps: 120, val_check_interval: 10}}
"""
FIGURES = ("steps", "train_loss", "valid_loss", "valid_WER", "best_valid_WER")


@dataclass
class Training:
    """One launch of train and of the stage after it."""

    recipe: Path
    name: str
    records: LaunchRecords

    @property
    def exp_dir(self) -> Path:
        return self.recipe / "exp" / self.name

    def status(self) -> dict[str, JobStatus]:
        chain = chain_status(self.records, SlurmCluster(Settings()))
        return {each.stage: each for each in chain}

    def job_id(self, stage: str = "train") -> str:
        events = self.records.events(LAUNCH)
        submitted = (each for each in events if each["event"] == "submitted")
        return next(each["job_id"] for each in submitted if each["stage"] == stage)

    def started(self) -> list[dict[str, Any]]:
        """Return what the runs of the training recorded when they began."""
        return [each for each in self.records.events("train") if each["event"] == "started"]

    def processes(self) -> list[int]:
        """Return the processes of the training itself, each of which may be suspended."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            is_it = len(words) > 1 and words[1].endswith(b"run.py") and b"train" in words
            if is_it and f"conf/{self.name}.yaml".encode() in b" ".join(words):
                found.append(int(entry.name))
        return found

    def suspend(self) -> list[int]:
        """Suspend the training in the middle, with a checkpoint behind it."""
        until(lambda: any(self.exp_dir.glob("checkpoints/step*.ckpt")), 90, "a checkpoint")
        suspended = self.processes()
        send(signal.SIGSTOP, suspended)
        assert suspended
        return suspended

    def metadata(self, name: str = "train") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.exp_dir / f"{name}.metadata.json").read_text())
        return found

    def figures(self) -> dict[str, Any]:
        results = self.metadata()["results"]
        return {name: results[name] for name in FIGURES if name in results}


def send(signum: signal.Signals, pids: Sequence[int]) -> None:
    """Send a signal to processes, some of which may be gone by now."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


@dataclass
class Trainings:
    """Makes trainings of one copy of the recipe, whose data is made."""

    recipe: Path
    slurm: Slurm
    made: list[Training] = field(default_factory=list)

    def launch(self, name: str, *settings: str) -> Training:
        (self.recipe / "conf" / f"{name}.yaml").write_text(CONFIG.format(name=name))
        command = ["--cluster", "slurm", "--container", "none"]
        command += ["--training_config", f"conf/{name}.yaml", "--stages", "train", "infer"]
        return self._launched(name, *command, f"launch_name={name}", *settings)

    def resume(self, training: Training) -> Training:
        """Have a training that failed go on in a launch of its own."""
        return self._launched(training.name, "resume", str(training.records.directory))

    def _launched(self, name: str, *command: str) -> Training:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = (each for each in done.stdout.splitlines() if each.startswith("launch "))
        where = self.recipe / line.removeprefix("launch ")
        self.made.append(Training(self.recipe, name, LaunchRecords(where)))
        return self.made[-1]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m launcher`` in the recipe's folder."""
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            cwd=self.recipe,
            env=environment_of(self.slurm),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def close(self) -> None:
        """Cancel what is left of them."""
        shown = self.slurm.run("squeue", "--noheader", "--format=%i|%Z")
        for job, _, where in (line.partition("|") for line in shown.splitlines()):
            if any(where.startswith(str(each.records.directory)) for each in self.made):
                subprocess.run(["scancel", job], env=environment_of(self.slurm), timeout=30)


def environment_of(slurm: Slurm) -> dict[str, str]:
    own = {"LAUNCHER_CONFIG": os.devnull, "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **slurm.environment, **own}


@contextmanager
def trainings_of(recipe: Path, slurm: Slurm) -> Iterator[Trainings]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        made = Trainings(recipe, slurm)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="session")
def recipe_with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this project's small recipe, with its data made."""
    root = tmp_path_factory.mktemp("trainings") / "espnet3 launcher"
    for folder in ("egs3", "espnet3"):
        ignored = shutil.ignore_patterns("exp", "__pycache__", ".launches")
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=ignored)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    recipe = root / "egs3" / "mini_an4" / "asr"
    (recipe / "conf" / "data.yaml").write_text(CONFIG.format(name="undisturbed"))
    stages = ["create_dataset", "train_tokenizer", "collect_stats"]
    made = subprocess.run(
        [sys.executable, "run.py", "--stages", *stages, "--training_config", "conf/data.yaml"],
        cwd=recipe,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    return recipe


@pytest.fixture
def trainings(recipe_with_data: Path, slurm: Slurm) -> Iterator[Trainings]:
    """Return what launches the small recipe's training; what is left of it ends with the test."""
    with trainings_of(recipe_with_data, slurm) as made:
        yield made


@pytest.fixture(scope="session")
def known_figures() -> dict[str, Any]:
    """Keep the figures of the undisturbed training, which knows no difference between Slurms.

    pytest makes ``slurm``, and all that asks for it, anew whenever tests go over to the other one.
    """
    return {}


@pytest.fixture(scope="session")
def undisturbed(
    recipe_with_data: Path, slurm: Slurm, known_figures: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures of a training that nothing happened to."""
    if known_figures:
        return known_figures
    with trainings_of(recipe_with_data, slurm) as made:
        training = made.launch("undisturbed")
        until(lambda: all(each.has_ended for each in training.status().values()), 180)
        assert [each.state for each in training.status().values()] == ["done", "done"]
    figures = training.figures()
    assert figures["steps"] == 120
    known_figures.update(figures)
    return known_figures


def went_on(training: Training, slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    """See that a training was run again under its id, went on, and gave what it should."""
    until(lambda: all(each.has_ended for each in training.status().values()), 240)
    told = {name: (each.state, each.reason) for name, each in training.status().items()}
    assert told == {"train": ("done", ""), "infer": ("done", "")}
    shown = slurm.run("scontrol", "--oneliner", "show", "job", training.job_id())
    assert re.search(r"\bRestarts=[1-9]", shown), shown
    assert re.search(r"on from|goes on|resum", (training.exp_dir / "train.log").read_text())
    assert training.figures() == undisturbed
