"""A real training that SLURM stops in the middle, and that goes on.

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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.clusters.slurm import Settings, SlurmCluster
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus, chain_status
from tests.cluster.faults.table import TRAINING_DISTURBED
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(TRAINING_DISTURBED)]
REPOSITORY = Path(__file__).resolve().parents[3]
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
        until(lambda: any(self.exp_dir.glob("checkpoints/*.ckpt")), 90, "a checkpoint")
        suspended = self.processes()
        for pid in suspended:
            os.kill(pid, signal.SIGSTOP)
        assert suspended
        return suspended

    def figures(self) -> dict[str, Any]:
        results = json.loads((self.exp_dir / "train.metadata.json").read_text())["results"]
        return {name: results[name] for name in FIGURES if name in results}


def go_on(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


@dataclass
class Trainings:
    """Makes trainings of one copy of the recipe, whose data is made."""

    recipe: Path
    environment: dict[str, str]

    def launch(self, name: str, *settings: str) -> Training:
        (self.recipe / "conf" / f"{name}.yaml").write_text(CONFIG.format(name=name))
        command = [sys.executable, "-m", "launcher", "--cluster", "slurm", "--container", "none"]
        command += ["--training_config", f"conf/{name}.yaml", "--stages", "train", "infer"]
        done = subprocess.run(
            [*command, f"launch_name={name}", *settings],
            cwd=self.recipe,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        where = self.recipe / done.stdout.splitlines()[0].removeprefix("launch ")
        return Training(self.recipe, name, LaunchRecords(where))


@pytest.fixture(scope="module")
def trainings(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Return a copy of this project with the small recipe's data made."""
    root = tmp_path_factory.mktemp("trainings") / "espnet3 launcher"
    for folder in ("egs3", "espnet3"):
        ignored = shutil.ignore_patterns("exp", "__pycache__", ".launches")
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=ignored)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    recipe = root / "egs3" / "mini_an4" / "asr"
    environment = {**os.environ, **slurm.environment, "LAUNCHER_CONFIG": os.devnull}
    environment["PYTHONPATH"] = str(REPOSITORY)
    (recipe / "conf" / "data.yaml").write_text(CONFIG.format(name="undisturbed"))
    stages = ["create_dataset", "train_tokenizer", "collect_stats"]
    made = subprocess.run(
        [sys.executable, "run.py", "--stages", *stages, "--training_config", "conf/data.yaml"],
        cwd=recipe,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        yield Trainings(recipe, environment)
        folder = str(root)
        shown = slurm.run("squeue", "--noheader", "--format=%i|%Z")
        left = [line.partition("|") for line in shown.splitlines()]
        for job, _, where in left:
            if where.startswith(folder):
                subprocess.run(["scancel", job], env=environment, timeout=30)


@pytest.fixture(scope="module")
def undisturbed(trainings: Trainings) -> dict[str, Any]:
    """Return the figures of a training that nothing happened to."""
    training = trainings.launch("undisturbed")
    until(lambda: all(each.has_ended for each in training.status().values()), 180)
    assert [each.state for each in training.status().values()] == ["done", "done"]
    figures = training.figures()
    assert figures["steps"] == 120
    return figures


def went_on(training: Training, slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    """See that a training was run again under its id, went on, and gave what it should."""
    until(lambda: all(each.has_ended for each in training.status().values()), 240)
    told = {name: (each.state, each.reason) for name, each in training.status().items()}
    assert told == {"train": ("done", ""), "infer": ("done", "")}
    shown = slurm.run("scontrol", "--oneliner", "show", "job", training.job_id())
    assert re.search(r"\bRestarts=[1-9]", shown), shown
    assert re.search(r"on from|goes on|resum", (training.exp_dir / "train.log").read_text())
    assert training.figures() == undisturbed


def test_preempted(trainings: Trainings, slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    node = slurm.nodes[2]
    where = ["stages.train.partition=low", f"stages.train.sbatch.nodelist={node}"]
    training = trainings.launch("preempted", *where)
    suspended = training.suspend()
    slurm.run("scontrol", "requeue", training.job_id())
    go_on(suspended)
    went_on(training, slurm, undisturbed)


def test_out_of_time(trainings: Trainings, slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    limits = ["stages.train.timeout_min=1", "cluster.signal_delay_s=14"]
    training = trainings.launch("out-of-time", *limits)
    suspended = training.suspend()
    # SLURM sends its warning up to a minute early, and SIGCONT before it. The stage is told 14 s
    # before the end of its minute, and hears of it when it wakes.
    while slurm_seconds_left(slurm, training) > 12:
        for pid in suspended:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.05)
    go_on(suspended)
    went_on(training, slurm, undisturbed)
    events = [e for e in training.records.events("train") if e["event"] == "requeued"]
    assert [e.get("cause") for e in events] == ["time_limit"]
    assert "for run 2 of at most 4: checkpoint after step" in events[0]["reason"]


def slurm_seconds_left(slurm: Slurm, training: Training) -> int:
    told = slurm.run("squeue", "--noheader", f"--jobs={training.job_id()}", "--format=%L").strip()
    minutes, _, seconds = told.rpartition(":")
    return int(minutes or 0) * 60 + int(seconds)
