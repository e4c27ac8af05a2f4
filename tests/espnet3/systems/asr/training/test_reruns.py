"""What another ``train`` finds: a finished run, a changed config, a damaged checkpoint."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from espnet3.systems.asr.checkpoints import CheckpointFolder, best_checkpoint, load_recogniser
from espnet3.systems.asr.features import LogMel
from espnet3.systems.asr.model import CTCModel
from espnet3.systems.asr.system import ASRSystem
from espnet3.utils.errors import CheckpointError, StorageError

from .conftest import MakeSystem, checkpoint_content, figures, train_until_interrupted
from .test_resume import STEPS, assert_same_training, signal_after_step


def checkpoints(system: object) -> list[str]:
    return sorted(path.name for path in Path(system.exp_dir, "checkpoints").glob("*.ckpt"))


def undisturbed_and_interrupted(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch
) -> tuple[ASRSystem, ASRSystem]:
    """Return a system that has trained to the end, and one like it that was ended at step 6."""
    undisturbed, system = make_system("undisturbed"), make_system("interrupted")
    undisturbed.train()
    with monkeypatch.context() as patch:
        signal_after_step(patch, 6, signal.SIGTERM)
        train_until_interrupted(system)
    return undisturbed, system


def test_train_makes_what_is_missing_and_returns_its_figures(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    system = make_system()
    results = system.train()
    assert "The data is not ready, so create_dataset runs first" in caplog.text
    assert results["steps"] == STEPS
    for name in ("wall_s", "utterances_per_s", "valid_loss", "valid_WER", "best_valid_WER"):
        assert results[name] > 0
    assert Path(system.training_config.stats_dir, "feature_stats.json").exists()
    assert list(Path(system.exp_dir, "tensorboard").glob("events*"))
    assert list(Path(system.exp_dir, "metrics").glob("*/metrics.csv"))


def test_finished_training_is_kept_and_said_to_be(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = make_system().train()
    kept = checkpoints(make_system())
    # How it runs is no part of what the weights depend on.
    again = make_system(dataloader__train__num_workers=2, trainer__log_every_n_steps=7)
    assert again.train() == first
    assert "Kept: the finished training" in caplog.text
    assert checkpoints(again) == kept


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("trainer__max_steps", 8, "trainer.max_steps: 12 -> 8"),
        ("model__dim", 32, "model.dim: 16 -> 32"),
        ("seed", 4, "seed: 3 -> 4"),
        ("features__num_mel_bins", 24, "features.num_mel_bins: 20 -> 24"),
    ],
)
def test_a_changed_config_begins_anew_and_moves_the_old_run_aside(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture, key: str, value: int, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    make_system().train()
    old = checkpoints(make_system())
    changed = make_system(**{key: value})
    changed.train()
    assert reason in caplog.text
    previous = Path(changed.exp_dir, "previous1")
    assert str(previous) in caplog.text
    assert sorted(path.name for path in (previous / "checkpoints").glob("*.ckpt")) == old


def test_a_finished_run_outlives_others_and_comes_back(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    finished = make_system().train()
    kept = contents(make_system())
    # A run that dies before its first checkpoint, and one that has some.
    with monkeypatch.context() as patch:
        patch.setattr("espnet3.systems.asr.training.train._fit", die)
        with pytest.raises(RuntimeError, match="killed"):
            make_system(trainer__max_steps=6000).train()
    make_system(trainer__max_steps=2).train()
    exp_dir = Path(make_system().exp_dir)
    assert "had no checkpoint yet and is removed" in caplog.text
    assert [path.name for path in exp_dir.glob("previous*")] == ["previous1"]
    caplog.clear()
    assert make_system().train() == finished
    assert f"is brought back: {exp_dir / 'previous1'}" in caplog.text
    assert "Kept: the finished training" in caplog.text
    assert contents(make_system()) == kept
    assert [path.name for path in exp_dir.glob("previous*")] == ["previous2"]
    assert (exp_dir / "previous2" / "checkpoints" / "step00000002.ckpt").exists()


def test_an_interrupted_run_that_comes_back_goes_on(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed, system = undisturbed_and_interrupted(make_system, monkeypatch)
    make_system("interrupted", seed=4, trainer__max_steps=2).train()
    make_system("interrupted").train()
    assert_same_training(checkpoint_content(system, STEPS), checkpoint_content(undisturbed, STEPS))


def die(*_: object) -> None:
    raise RuntimeError("killed")


def contents(system: object) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(system.exp_dir).glob("*/*.ckpt")}


def test_only_the_best_and_the_newest_two_checkpoints_stay(make_system: MakeSystem) -> None:
    system = make_system(
        trainer__val_check_interval=1, trainer__checkpoint={"keep_best": 2, "monitor": "valid_loss"}
    )
    system.train()
    entries = CheckpointFolder(system.exp_dir, monitor="valid_loss").entries()
    assert {11, 12} <= {entry.step for entry in entries}
    assert len(entries) <= 4
    assert checkpoints(system) == [f"step{entry.step:08d}.ckpt" for entry in entries]


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed, system = undisturbed_and_interrupted(make_system, monkeypatch)
    newest = CheckpointFolder(system.exp_dir).file(6)
    newest.write_bytes(newest.read_bytes()[:1000])
    caplog.set_level(logging.INFO)
    make_system("interrupted").train()
    assert f"{newest} is truncated" in caplog.text
    assert f"Going on from step 4: {CheckpointFolder(system.exp_dir).file(4)}" in caplog.text
    assert_same_training(checkpoint_content(system, STEPS), checkpoint_content(undisturbed, STEPS))
    assert figures(system) == figures(undisturbed)


def test_a_checkpoint_of_another_training_is_not_gone_on_from(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = make_system("mine"), make_system("other", seed=4)
    for system in (mine, other):
        with monkeypatch.context() as patch:
            signal_after_step(patch, 6, signal.SIGTERM)
            train_until_interrupted(system)
    for name in ("step00000006.ckpt", "index.json"):
        shutil.copy(
            Path(other.exp_dir, "checkpoints", name), Path(mine.exp_dir, "checkpoints", name)
        )
    with pytest.raises(CheckpointError, match=r"step00000006\.ckpt was written by a training with"):
        mine.train()


def test_all_checkpoints_damaged_begins_anew(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    system = make_system()
    system.train()
    for path in Path(system.exp_dir, "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        best_checkpoint(system.exp_dir)
    caplog.set_level(logging.INFO)
    assert make_system().train()["steps"] == STEPS
    assert "Going on from" not in caplog.text
    assert best_checkpoint(system.exp_dir).exists()


def test_the_best_checkpoint_is_chosen_by_what_was_monitored_and_loads(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    system = make_system(trainer__checkpoint__monitor="valid_loss")
    system.train()
    losses = {step: metrics["valid_loss"] for step, metrics in figures(system)}
    best = best_checkpoint(system.exp_dir)
    assert best.name == f"step{min(losses, key=losses.__getitem__):08d}.ckpt"
    recogniser = load_recogniser(best)
    assert isinstance(recogniser.log_mel, LogMel)
    assert not recogniser.model.training
    assert recogniser.tokenizer.decode(recogniser.tokenizer.encode("LOW HIGH")) == "LOW HIGH"
    best.write_bytes(best.read_bytes()[:-100])
    others = [step for step in sorted(losses, key=losses.__getitem__) if losses[step]]
    assert best_checkpoint(system.exp_dir).name == f"step{others[1]:08d}.ckpt"
    assert f"{best} is truncated" in caplog.text
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_recogniser(best)


def test_a_lost_index_costs_no_checkpoint(make_system: MakeSystem) -> None:
    system = make_system()
    system.train()
    Path(system.exp_dir, "checkpoints", "index.json").write_text("{")
    assert best_checkpoint(system.exp_dir).name == f"step{STEPS:08d}.ckpt"


def test_a_full_disk_is_one_error_and_leaves_earlier_checkpoints(
    make_system: MakeSystem, small_disk: Path
) -> None:
    small = {
        "averaging__decay": 0.0,
        "model__num_layers": 1,
        "model__dim": 8,
        "model__feedforward_dim": 8,
        "trainer__val_check_interval": 1,
    }
    system = make_system(exp_dir=str(small_disk / "exp"), **small)
    with pytest.raises(StorageError, match=r"the disk is full"):
        system.train()
    entries = CheckpointFolder(system.exp_dir).entries()
    assert entries
    load_recogniser(best_checkpoint(system.exp_dir))
    # Nothing half-written is left.
    assert len(list(Path(system.exp_dir, "checkpoints").glob("*.ckpt"))) == len(entries)
    assert not list(Path(system.exp_dir, "checkpoints").glob("*partial*"))
    # On a larger disk the run goes on.
    larger = make_system("larger", **small)
    shutil.copytree(system.exp_dir, larger.exp_dir, dirs_exist_ok=True)
    assert larger.train()["steps"] == STEPS


def test_an_exp_dir_that_cannot_be_written_is_one_error(
    make_system: MakeSystem, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="read-only"):
        make_system(exp_dir=str(small_disk / "exp")).train()


def test_early_stopping_ends_the_run_and_counts_as_finished(
    make_system: MakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = {
        "trainer__val_check_interval": 1,
        "trainer__early_stopping__patience": 1,
        "optimizer__lr": 0.0,
    }
    results = make_system(**settings).train()
    assert results["steps"] == 2
    assert "Stopping early" in caplog.text
    assert make_system(**settings).train() == results
    assert "Kept: the finished training" in caplog.text


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(
    make_system: MakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    encode = CTCModel.encode

    def encode_and_note(self: CTCModel, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded, lengths = encode(self, *inputs)
        seen.add(self.output(encoded).dtype)
        return encoded, lengths

    monkeypatch.setattr(CTCModel, "encode", encode_and_note)
    system = make_system(trainer__precision="bf16-mixed")
    results = system.train()
    assert torch.bfloat16 in seen
    assert 0 < results["valid_loss"] < float("inf")
    weights = checkpoint_content(system, STEPS)["state_dict"].values()
    assert {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.float32}
