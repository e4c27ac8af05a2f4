"""Training in processes of its own: a signal from outside, and two ranks together."""

from __future__ import annotations

import json
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


# Runs the stage; takes half a second to save each checkpoint, and says when it begins.
RUN_TRAIN = """
import os, sys, time
from omegaconf import OmegaConf
from espnet3.systems.asr.system import ASRSystem
from espnet3.systems.asr.training import checkpoint_io, run_keeper
from espnet3.utils.logging_utils import configure_logging
from espnet3.utils.stages_utils import run_stages

log_step, save = run_keeper.RunKeeper._log_step, checkpoint_io._Stream.save

def log_and_tell(self, *arguments):
    log_step(self, *arguments)
    print("step", self.step, flush=True)

def save_slowly(self, checkpoint):
    print("saving", flush=True)
    time.sleep(0.25)
    save(self, checkpoint)
    time.sleep(0.25)

run_keeper.RunKeeper._log_step = log_and_tell
checkpoint_io._Stream.save = save_slowly
configure_logging()
run_stages(ASRSystem(training_config=OmegaConf.load(sys.argv[1])), ["train"])
"""


@pytest.mark.parametrize(
    ("first", "further", "num_workers", "wait_s"),
    [
        pytest.param(signal.SIGTERM, [signal.SIGTERM], 2, 0.0, id="twice at once"),
        pytest.param(signal.SIGTERM, [signal.SIGTERM] * 2, 0, 0.3, id="again while it saves"),
        pytest.param(signal.SIGUSR2, [signal.SIGTERM], 2, 0.3, id="warned, then ended"),
        pytest.param(signal.SIGUSR2, [signal.SIGTERM], 0, 0.7, id="ended when it has saved"),
        pytest.param(signal.SIGTERM, [signal.SIGUSR2, signal.SIGHUP], 2, 0.7, id="all of them"),
    ],
)
def test_signals_after_the_first_to_every_process_do_not_break_the_saving(
    make_system: MakeSystem, first: int, further: list[int], num_workers: int, wait_s: float
) -> None:
    """Slurm signals every process of a step, the launcher's guard the group of the stage's."""
    endless = {"trainer__max_steps": 100000, "trainer__val_check_interval": 100000}
    system = make_system(**endless, dataloader__train__num_workers=num_workers)
    folder = Path(system.training_config.recipe_dir)
    (folder / "run_train.py").write_text(RUN_TRAIN)
    OmegaConf.save(system.training_config, folder / "endless.yaml")
    process = subprocess.Popen(
        [sys.executable, str(folder / "run_train.py"), str(folder / "endless.yaml")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = wait_for(process, "step 3")
    os.killpg(process.pid, first)
    if wait_s:
        said += wait_for(process, "saving")
    for signum in further:
        time.sleep(wait_s / len(further))
        os.killpg(process.pid, signum)
    said += process.communicate(timeout=60)[0]
    assert process.returncode == 128 + first, said
    metadata = json.loads(Path(system.exp_dir, "train.metadata.json").read_text())
    assert metadata["exit"]["signal"] == signal.Signals(first).name
    (checkpoint,) = Path(system.exp_dir, "checkpoints").glob("*.ckpt")
    assert str(checkpoint) in metadata["exit"]["message"]
    assert int(checkpoint.stem.removeprefix("step")) >= 3
    assert torch.load(checkpoint, weights_only=True)["callbacks"]["RunKeeper"]["step"] >= 3


def wait_for(process: subprocess.Popen[str], line_start: str) -> str:
    """Read what a process prints up to a line, and return it."""
    assert process.stdout is not None
    said = ""
    while not said.splitlines()[-1:] or not said.splitlines()[-1].startswith(line_start):
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


HANGING_WORKER = """
import os, subprocess, sys, time
from torch.utils.data import DataLoader, IterableDataset
from espnet3.systems.asr.training.interruption import leave_signals_to_training

class Hanging(IterableDataset):
    def __iter__(self):
        yield os.getpid()
        time.sleep(600)

batches = iter(DataLoader(
    Hanging(), batch_size=None, num_workers=1, multiprocessing_context="fork",
    worker_init_fn=leave_signals_to_training,
))
worker = next(batches)
for signal in ("TERM", "USR2", "INT", "HUP"):
    subprocess.run(["kill", f"-{signal}", str(worker)], check=True)
time.sleep(0.5)
os.kill(worker, 0)
print("worker lives", flush=True)
"""


def test_a_loaders_worker_ends_by_its_own_training_only() -> None:
    begin_s = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", HANGING_WORKER],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, "worker lives\n"), ran.stderr
    assert time.monotonic() - begin_s < 30


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
