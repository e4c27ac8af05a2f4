"""A run that is interrupted and gone on with ends as the undisturbed one does, bit by bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet3.systems.asr.checkpoints import CheckpointFolder
from espnet3.systems.asr.training import run_keeper, validation
from espnet3.utils.stage_endings import StageInterrupted

from .conftest import MakeSystem, checkpoint_content, figures, train_until_interrupted

STEPS = 12
# 14 utterances make batches of an epoch's end at these steps, see test_epochs_end_where_they_say.
WITHIN_AN_EPOCH = 5


def assert_same(one: Any, other: Any) -> None:
    """Compare nested values, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def assert_same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare weights, average, optimizer and schedule of two checkpoints."""
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(one[key], other[key])
    states = [content["callbacks"]["RunKeeper"] for content in (one, other)]
    for state in states:
        del state["train_s"]
    assert_same(*states)


def signal_after_step(monkeypatch: pytest.MonkeyPatch, step: int, signum: int) -> None:
    """Send this process ``signum`` while optimizer step ``step`` is being logged."""
    log_step = run_keeper.RunKeeper._log_step

    def log_and_signal(self: Any, *arguments: Any) -> None:
        log_step(self, *arguments)
        if self.step == step:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(run_keeper.RunKeeper, "_log_step", log_and_signal)


def epoch_ends(system: Any) -> list[int]:
    """Return the steps after which an epoch was complete, from the logged epochs."""
    rows = next(Path(system.exp_dir, "metrics").glob("*/metrics.csv")).read_text().splitlines()
    header = rows[0].split(",")
    steps = {
        int(row.split(",")[header.index("step")]): int(float(row.split(",")[header.index("epoch")]))
        for row in rows[1:]
        if row.split(",")[header.index("epoch")]
    }
    return [step for step in sorted(steps) if steps.get(step + 1, steps[step]) > steps[step]]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("where", ["within an epoch", "at an epoch's end"])
def test_interrupted_and_resumed_equals_undisturbed(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch, num_workers: int, where: str
) -> None:
    undisturbed = make_system("undisturbed")
    undisturbed.train()
    ends = epoch_ends(undisturbed)
    within = [step for step in range(2, STEPS) if step not in ends]
    step = (ends if where == "at an epoch's end" else within)[0]

    system = make_system("interrupted", dataloader__train__num_workers=num_workers)
    with monkeypatch.context() as patch:
        signal_after_step(patch, step, signal.SIGTERM)
        interruption = train_until_interrupted(system)
    assert interruption.code == 128 + signal.SIGTERM
    assert f"after step {step} of {STEPS}" in interruption.message
    results = make_system("interrupted", dataloader__train__num_workers=num_workers).train()

    assert results["steps"] == STEPS
    assert_same_training(checkpoint_content(system, STEPS), checkpoint_content(undisturbed, STEPS))
    assert figures(system) == figures(undisturbed)


def test_a_closed_terminal_costs_nothing_and_nohup_is_respected(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = make_system()
    with monkeypatch.context() as patch:
        signal_after_step(patch, 5, signal.SIGHUP)
        assert train_until_interrupted(system).code == 128 + signal.SIGHUP
    assert CheckpointFolder(system.exp_dir).file(5).exists()
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signal_after_step(monkeypatch, 7, signal.SIGHUP)
        assert make_system().train()["steps"] == STEPS
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_several_interruptions_with_accumulated_gradients_change_nothing(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = {"trainer__accumulate_grad_batches": 3}
    undisturbed = make_system("undisturbed", **accumulate)
    undisturbed.train()
    for step, signum in ((1, signal.SIGUSR2), (4, signal.SIGTERM), (11, signal.SIGUSR2)):
        system = make_system("interrupted", **accumulate)
        with monkeypatch.context() as patch:
            signal_after_step(patch, step, signum)
            assert train_until_interrupted(system).code == 128 + signum
    make_system("interrupted", **accumulate).train()
    assert_same_training(checkpoint_content(system, STEPS), checkpoint_content(undisturbed, STEPS))
    assert figures(system) == figures(undisturbed)


@pytest.mark.parametrize("which_validation", [1, 3], ids=["the first", "the last"])
def test_a_validation_cut_short_is_made_up_for(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch, which_validation: int
) -> None:
    undisturbed = make_system("undisturbed")
    undisturbed.train()

    system = make_system("interrupted")
    decode, calls = validation.greedy_ctc, []

    def decode_and_signal(*arguments: Any) -> Any:
        calls.append(system)
        if len(calls) == per_validation * (which_validation - 1) + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(*arguments)

    per_validation = 4
    with monkeypatch.context() as patch:
        patch.setattr(validation, "greedy_ctc", decode_and_signal)
        train_until_interrupted(system)
    step = 4 * which_validation
    state = checkpoint_content(system, step)["callbacks"]["RunKeeper"]
    assert state["validation_pending"]
    assert len(calls) == per_validation * (which_validation - 1) + 1

    make_system("interrupted").train()
    assert_same_training(checkpoint_content(system, STEPS), checkpoint_content(undisturbed, STEPS))
    assert figures(system) == figures(undisturbed)


def test_a_signal_before_the_first_step_leaves_nothing_half_done(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(signum: int, frame: Any) -> None:
        raise StageInterrupted(signum, "by the framework")

    earlier = signal.signal(signal.SIGTERM, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(
                "espnet3.systems.asr.training.train.keep_freed_memory",
                lambda: os.kill(os.getpid(), signal.SIGTERM),
            )
            train_until_interrupted(make_system())
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert make_system().train()["steps"] == STEPS
