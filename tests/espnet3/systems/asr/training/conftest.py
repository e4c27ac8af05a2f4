"""A recipe of short tones, each word a pitch, and a network that trains on it in a second."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from espnet3.systems.asr.checkpoints import CheckpointFolder
from espnet3.systems.asr.system import ASRSystem
from espnet3.utils.stage_endings import StageInterrupted

DATASET = """
from pathlib import Path

import numpy as np
import soundfile

from espnet3.data import Dataset as BaseDataset
from espnet3.data import DatasetBuilder as BaseBuilder
from espnet3.data import load_cuts, save_cuts
from espnet3.data.manifests import utterance_cut

PITCH_HZ = {"LOW": 300, "MIDDLE": 900, "HIGH": 2500}
COUNTS = {"train": 14, "valid": 6}


class DatasetBuilder(BaseBuilder):
    def is_source_prepared(self, **settings):
        return True

    def prepare_source(self, **settings):
        raise AssertionError

    def is_built(self, recipe_dir, data_dir, **settings):
        return (Path(data_dir) / "valid.cuts.jsonl.gz").exists()

    def build(self, recipe_dir, data_dir, **settings):
        rng = np.random.default_rng(0)
        Path(data_dir).mkdir(parents=True, exist_ok=True)
        for split, count in COUNTS.items():
            cuts = [self._tones(rng, Path(data_dir), f"{split}-{n}") for n in range(count)]
            save_cuts(cuts, Path(data_dir) / f"{split}.cuts.jsonl.gz")

    def _tones(self, rng, data_dir, utterance_id):
        words = rng.choice(list(PITCH_HZ), size=rng.integers(1, 4))
        time_s = np.arange(2000) / 8000
        tones = [np.sin(2 * np.pi * PITCH_HZ[word] * time_s) * np.hanning(2000) for word in words]
        samples = 0.3 * np.concatenate(tones) + 0.01 * rng.normal(size=2000 * len(words))
        audio = data_dir / f"{utterance_id}.wav"
        soundfile.write(audio, samples, 8000, subtype="PCM_16")
        return utterance_cut(
            utterance_id,
            text=" ".join(words),
            speaker="sine",
            audio=Path(audio.name),
            num_samples=len(samples),
            sample_rate_hz=8000,
        )


class Dataset(BaseDataset):
    def __init__(self, split, recipe_dir, data_dir):
        self.manifest = Path(data_dir) / f"{split}.cuts.jsonl.gz"
        self.data_dir = Path(data_dir)

    def cuts(self):
        return load_cuts(self.manifest, data_dir=self.data_dir)
"""

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "dataset": {
        "train": [{"data_src_args": {"split": "train"}}],
        "valid": [{"data_src_args": {"split": "valid"}}],
    },
    "tokenizer": {"model_type": "word", "vocab_size": 0},
    "features": {"sample_rate_hz": 8000, "num_mel_bins": 20, "utterance_mean_removal": True},
    "augmentation": {
        "speed_factors": [0.9, 1.0, 1.1],
        "spec_augment": {"max_freq_mask_bins": 4, "max_time_mask_frames": 6},
    },
    "model": {
        "num_layers": 2,
        "dim": 16,
        "num_heads": 2,
        "feedforward_dim": 32,
        "conv_kernel": 5,
        "dropout": 0.1,
        "subsampling": {"factor": 4, "channels": 4},
    },
    "optimizer": {"lr": 5.0e-3},
    "scheduler": {"name": "linear", "warmup_steps": 3},
    "averaging": {"decay": 0.5},
    "dataloader": {
        "train": {"max_duration_s": 1.8, "num_buckets": 2},
        "valid": {"max_duration_s": 1.8, "num_buckets": 2},
    },
    "trainer": {
        "max_steps": 12,
        "val_check_interval": 4,
        "accelerator": "cpu",
        "devices": 1,
        "log_every_n_steps": 1,
        "num_threads": 1,
    },
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return the folder of the recipe of tones."""
    folder = tmp_path / "recipe of tones"
    (folder / "dataset").mkdir(parents=True)
    (folder / "dataset" / "__init__.py").write_text(DATASET, encoding="utf-8")
    return folder


MakeSystem = Callable[..., ASRSystem]


@pytest.fixture
def make_system(recipe: Path) -> MakeSystem:
    """Return a function (exp_tag, dotted overrides) -> system of that experiment."""

    def make(exp_tag: str = "exp", **overrides: Any) -> ASRSystem:
        places = {
            "recipe_dir": str(recipe),
            "data_dir": str(recipe / "data"),
            "exp_tag": exp_tag,
            "exp_dir": str(recipe / "exp" / exp_tag),
            "stats_dir": str(recipe / "stats"),
            "tokenizer": {"save_path": str(recipe / "data" / "tokenizer")},
        }
        config = OmegaConf.merge(SETTINGS, places)
        assert isinstance(config, DictConfig)
        for key, value in overrides.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        return ASRSystem(training_config=config)

    return make


@pytest.fixture(autouse=True)
def _signals_left_alone() -> Iterator[None]:
    """Check that training gives the signals back."""
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR2)]
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR2)] == before


def train_until_interrupted(system: ASRSystem) -> StageInterrupted:
    """Run ``train``, which must end by a signal; return what it raised."""
    with pytest.raises(StageInterrupted) as caught:
        system.train()
    return caught.value


def checkpoint_content(system: ASRSystem, step: int) -> dict[str, Any]:
    """Return the checkpoint that ``system`` wrote after ``step``."""
    assert system.exp_dir is not None
    return torch.load(CheckpointFolder(system.exp_dir).file(step), weights_only=True)


def figures(system: ASRSystem) -> list[tuple[int, dict[str, float]]]:
    """Return step and validation figures of the checkpoints that were validated."""
    assert system.exp_dir is not None
    entries = CheckpointFolder(system.exp_dir).entries()
    return [(entry.step, entry.metrics) for entry in entries if entry.metrics]
