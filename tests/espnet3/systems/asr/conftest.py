"""A recipe of three utterances, and a system whose ``train`` writes untrained weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from espnet3.systems.asr.model import build_model
from espnet3.systems.asr.system import ASRSystem
from espnet3.systems.asr.tokenizer import train_tokenizer
from espnet3.systems.asr.training_config import TrainingConfig, checked_training_config

DATASET = '''
"""Tones of 0.3 to 0.5 s, by two speakers."""

import numpy as np
import soundfile

from espnet3.data import Dataset as BaseDataset
from espnet3.data import DatasetBuilder as BaseBuilder
from espnet3.data import load_cuts, save_cuts
from espnet3.data.manifests import utterance_cut
from pathlib import Path

TEXTS = {"anna-1": "ONE TWO", "anna-2": "THREE ONE TWO", "bert-1": "TWO"}


class DatasetBuilder(BaseBuilder):
    def is_source_prepared(self, **settings):
        return True

    def prepare_source(self, **settings):
        raise AssertionError

    def is_built(self, recipe_dir, data_dir, **settings):
        return (Path(data_dir) / "test.cuts.jsonl.gz").exists()

    def build(self, recipe_dir, data_dir, **settings):
        generator = np.random.default_rng(0)
        Path(data_dir).mkdir(parents=True, exist_ok=True)
        cuts = []
        for index, (utterance_id, text) in enumerate(TEXTS.items()):
            audio = Path(data_dir) / f"{utterance_id}.wav"
            samples = generator.normal(0, 0.1, 4000 - 800 * index)
            soundfile.write(audio, samples, 8000, subtype="PCM_16")
            cuts.append(
                utterance_cut(
                    utterance_id,
                    text=text,
                    speaker=utterance_id.split("-")[0],
                    audio=Path(audio.name),
                    num_samples=len(samples),
                    sample_rate_hz=8000,
                )
            )
        for split in ("train", "valid", "test"):
            save_cuts(cuts, Path(data_dir) / f"{split}.cuts.jsonl.gz")
        save_cuts([], Path(data_dir) / "nothing.cuts.jsonl.gz")


class Dataset(BaseDataset):
    def __init__(self, split, recipe_dir, data_dir):
        self.manifest = Path(data_dir) / f"{split}.cuts.jsonl.gz"
        self.data_dir = Path(data_dir)

    def cuts(self):
        return load_cuts(self.manifest, data_dir=self.data_dir)
'''


def write_untrained_checkpoint(path: Path, config: TrainingConfig, seed: int = 0) -> Path:
    """Write a checkpoint as ``train`` does, with random weights."""
    texts = ["ONE TWO THREE"]
    folder = path.parent / f"tokenizer-{path.stem}"
    tokenizer = train_tokenizer(texts, model_type="char", vocab_size=0, save_path=folder)
    torch.manual_seed(seed)
    model = build_model(config, tokenizer.vocab_size)
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "recogniser": {
            "config": asdict(config),
            "tokenizer": (folder / "tokenizer.model").read_bytes(),
        },
        "optimizer_states": [torch.zeros(1000)],
    }
    torch.save(content, path)
    return path


class SmallSystem(ASRSystem):
    """Counts its stages; ``train`` takes no time."""

    def __init__(self, **configs):
        super().__init__(**configs)
        self.calls: list[str] = []

    def create_dataset(self):
        self.calls.append("create_dataset")
        return super().create_dataset()

    def train(self):
        self.calls.append("train")
        folder = self.exp_dir / "checkpoints"
        folder.mkdir(parents=True)
        write_untrained_checkpoint(folder / "step00000001.ckpt", checked_training_config(self))
        return {}

    def infer(self):
        self.calls.append("infer")
        return super().infer()


@pytest.fixture
def small_configs(hostile_path: Path) -> dict[str, dict]:
    """Return the configs of the recipe as plain mappings, to be altered and passed on."""
    recipe = hostile_path / "recipe"
    (recipe / "dataset").mkdir(parents=True)
    (recipe / "dataset" / "__init__.py").write_text(DATASET, encoding="utf-8")
    places = {
        "recipe_dir": str(recipe),
        "data_dir": str(recipe / "data"),
        "exp_tag": "small",
        "exp_dir": str(recipe / "exp" / "small"),
    }
    training = {
        **places,
        "dataset": {"train": [{"data_src_args": {"split": "train"}}]},
        "tokenizer": {
            "model_type": "char",
            "vocab_size": 0,
            "save_path": str(recipe / "data" / "tokenizer"),
        },
        "features": {"sample_rate_hz": 8000, "num_mel_bins": 16},
        "model": {
            "num_layers": 1,
            "dim": 8,
            "num_heads": 2,
            "feedforward_dim": 8,
            "conv_kernel": 3,
            "subsampling": {"factor": 4, "channels": 2},
        },
    }
    inference = {
        **places,
        "inference_dir": f"{places['exp_dir']}/inference",
        "dataset": {"test": [{"name": "test", "data_src_args": {"split": "test"}}]},
        "model": {"device": "cpu"},
        "decoding": {"beam_size": 4},
    }
    metrics = {
        **places,
        "inference_dir": inference["inference_dir"],
        "metrics": [
            {"metric": {"_target_": f"espnet3.systems.asr.scoring.{name}"}}
            for name in ("WER", "CER")
        ],
    }
    return {"training": training, "inference": inference, "metrics": metrics}


@pytest.fixture
def small_system(small_configs):
    """Return a function that makes the system of the given configs' roles."""

    def make(*roles: str) -> SmallSystem:
        return SmallSystem(
            **{f"{role}_config": OmegaConf.create(small_configs[role]) for role in roles}
        )

    return make
