"""Training in processes of its own: a signal from outside, and two ranks together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from espnet3.systems.asr.checkpoints import best_checkpoint, load_recogniser
from espnet3.systems.asr.data.batches import BatchMaker
from espnet3.systems.asr.data.feature_store import FeatureStore
from espnet3.systems.asr.data.valid import ValidationBatches
from espnet3.systems.asr.training.validation import count_errors
from espnet3.systems.asr.training.validation import figures as figures_of
from espnet3.systems.asr.training_config import checked_training_config
from espnet3.utils.errors import BusyError

from .conftest import MakeSystem, checkpoint_content, figures
from .test_resume import STEPS, assert_same_training

REPOSITORY = Path(__file__).parents[5]

# Trains as a runner does; the rank KILL_RANK gets a SIGTERM at step KILL_STEP.
SCRIPT = """
import os, signal, sys
from omegaconf import OmegaConf
from espnet3.systems.asr.system import ASRSystem
from espnet3.systems.asr.training import run_keeper

log_step = run_keeper.RunKeeper._log_step

def log_and_signal(self, *arguments):
    log_step(self, *arguments)
    print("step", self.step, flush=True)
    asked = (os.environ.get("KILL_RANK"), os.environ.get("KILL_STEP"))
    if asked == (os.environ["RANK"], str(self.step)):
        os.kill(os.getpid(), signal.SIGTERM)

run_keeper.RunKeeper._log_step = log_and_signal
ASRSystem(training_config=OmegaConf.load(sys.argv[1])).train()
"""

pytestmark = pytest.mark.slow


def start(system: Any, **environment: str) -> subprocess.Popen[str]:
    """Start a process that trains ``system``."""
    folder = Path(system.training_config.recipe_dir)
    (folder / "train.py").write_text(SCRIPT)
    config = folder / f"{system.training_config.exp_tag}.yaml"
    OmegaConf.save(system.training_config, config)
    return subprocess.Popen(
        [sys.executable, str(folder / "train.py"), str(config)],
        env={"RANK": "0", **os.environ, **environment, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_ranks(system: Any, **environment: str) -> list[subprocess.Popen[str]]:
    """Start two ranks, with what torchrun or the launcher puts into their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    return [
        start(system, **common, **environment, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[int]:
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    print("\n".join(outputs))
    return [process.returncode for process in processes]


def test_sigterm_from_outside_ends_the_process_with_a_checkpoint(make_system: MakeSystem) -> None:
    system = make_system(trainer__max_steps=100000, trainer__val_check_interval=100000)
    process = start(system)
    assert process.stdout is not None
    while "step 3" not in (line := process.stdout.readline()):
        assert process.poll() is None, line
    process.send_signal(signal.SIGTERM)
    begin_s = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - begin_s < 20
    assert best_checkpoint(system.exp_dir).exists()


def test_a_second_training_in_the_folder_is_refused_while_the_first_runs(
    make_system: MakeSystem,
) -> None:
    long = {"trainer__max_steps": 100000, "dataloader__train__num_workers": 1}
    first = start(make_system(**long))
    assert first.stdout is not None
    while "step 3" not in (line := first.stdout.readline()):
        assert first.poll() is None, line
    for second in (make_system(seed=4), make_system(**long)):
        with pytest.raises(BusyError, match=f"process {first.pid} on {socket.gethostname()}"):
            second.train()
    # A process that is killed holds nothing any longer, though its loader's worker lives on.
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert make_system(seed=4).train()["steps"] == STEPS
    first.communicate(timeout=60)  # until the worker, too, has ended


def test_two_ranks_train_validate_and_go_on_together(make_system: MakeSystem) -> None:
    two = {"trainer__devices": 2, "trainer__strategy": "ddp", "dataloader__train__num_workers": 1}
    undisturbed = make_system("undisturbed", **two)
    assert ends(start_ranks(undisturbed)) == [0, 0]

    # The figures that both ranks gave together are those of one process over all utterances.
    config = checked_training_config(undisturbed)
    recogniser = load_recogniser(best_checkpoint(undisturbed.exp_dir))
    from espnet3.systems.asr.data.datasets import load_split

    valid = load_split(config, "valid", create=undisturbed.create_dataset)
    maker = BatchMaker(FeatureStore(recogniser.log_mel, cache_mb=1), recogniser.tokenizer)
    counts = count_errors(
        recogniser.model,
        ValidationBatches(valid.cuts, maker, config.dataloader.valid),
        recogniser.tokenizer,
        device=torch.device("cpu"),
        after_each=lambda: None,
    )
    best = int(best_checkpoint(undisturbed.exp_dir).stem.removeprefix("step"))
    assert figures_of(counts) == pytest.approx(dict(figures(undisturbed))[best], abs=1e-4)

    # A signal to one rank ends both; the next run goes on exactly.
    interrupted = make_system("interrupted", **two)
    codes = ends(start_ranks(interrupted, KILL_RANK="1", KILL_STEP="5"))
    assert codes == [128 + signal.SIGTERM] * 2
    assert ends(start_ranks(interrupted)) == [0, 0]
    assert_same_training(
        checkpoint_content(interrupted, STEPS), checkpoint_content(undisturbed, STEPS)
    )


RUN_STAGES = """
import sys
from omegaconf import OmegaConf
from espnet3.systems.asr.system import ASRSystem
from espnet3.utils.stages_utils import run_stages

class System(ASRSystem):
    def after(self):
        print("after training", flush=True)

system = System(training_config=OmegaConf.load(sys.argv[1]))
run_stages(system, ["create_dataset", "train", "after"])
"""


def test_one_command_trains_on_two_devices(make_system: MakeSystem) -> None:
    """Lightning starts the second rank as a copy of the command; it does nothing but train."""
    system = make_system("two", trainer__devices=2, trainer__strategy="ddp")
    folder = Path(system.training_config.recipe_dir)
    (folder / "run_stages.py").write_text(RUN_STAGES)
    OmegaConf.save(system.training_config, folder / "two.yaml")
    ran = subprocess.run(
        [sys.executable, str(folder / "run_stages.py"), str(folder / "two.yaml")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("after training") == 1
    assert [step for step, _ in figures(system)][-1] == STEPS
    assert not list(folder.rglob("*1.log")), "a second rank kept a log of its own"
