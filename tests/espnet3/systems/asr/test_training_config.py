"""What a training config may hold, and what a slip in it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from espnet3.systems.asr.model.subsampling import ConvSubsampling
from espnet3.systems.asr.system import ASRSystem
from espnet3.systems.asr.training_checks import BOUNDS, CHOICES
from espnet3.systems.asr.training_config import TrainingConfig, checked_training_config
from espnet3.utils.config_utils import load_and_merge_config
from espnet3.utils.errors import ConfigError

REPOSITORY = Path(__file__).parents[4]
_SPILT = {"data_src_args": {"spilt": "train"}}
CONFIGS = sorted(REPOSITORY.glob("egs3/*/asr/conf/training*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_every_shipped_config_is_accepted(path: Path) -> None:
    config = load_and_merge_config(
        path, "training.yaml", default_package="egs3.TEMPLATE.asr", resolve=False
    )
    assert config is not None
    config["recipe_dir"] = str(path.parents[1])
    OmegaConf.resolve(config)
    typed = checked_training_config(ASRSystem(training_config=config))
    assert isinstance(typed, TrainingConfig)
    assert Path(typed.exp_dir).parts[-2:] == ("exp", typed.exp_tag)


def test_the_template_spells_out_every_default() -> None:
    template = OmegaConf.load(REPOSITORY / "egs3/TEMPLATE/asr/conf/training.yaml")
    known = OmegaConf.structured(TrainingConfig)

    def keys(config: object, prefix: str = "") -> set[str]:
        found = set()
        for key in config:  # type: ignore[attr-defined]
            value = config._get_node(key)  # type: ignore[attr-defined]
            name = f"{prefix}{key}"
            found |= keys(value, f"{name}.") if OmegaConf.is_dict(value) else {name}
        return found

    set_by_the_recipe = {"recipe_dir", "dataset.test"}
    assert keys(template) == keys(known) - set_by_the_recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modell": {}}, "unknown key 'modell'. Did you mean 'model'?"),
        ({"model": {"num_layer": 3}}, "unknown key 'model.num_layer'. Did you mean 'num_layers'?"),
        ({"model": {"num_layers": "six"}}, "'model.num_layers' is 'six'"),
        ({"model": {"encoder": "lstm"}}, "'model.encoder' is 'lstm'; it may be one of: conformer"),
        ({"model": {"dim": 100, "num_heads": 8}}, "must be a multiple of 2 × num_heads = 16"),
        ({"model": {"conv_kernel": 4}}, "'model.conv_kernel' is 4; it must be odd"),
        ({"model": {"subsampling": {"factor": 3}}}, "'model.subsampling.factor' is 3"),
        ({"tokenizer": {"model_type": "words"}}, "unigram, char, word. Did you mean 'word'?"),
        ({"tokenizer": {"model_type": "unigram", "vocab_size": 0}}, "'unigram' needs a number"),
        ({"tokenizer": {"vocab_size": -1}}, "'tokenizer.vocab_size' is -1"),
        ({"tokenizer": {"character_coverage": 0.0}}, "'tokenizer.character_coverage' is 0.0"),
        ({"dataset": {"train": [_SPILT]}}, "dataset.train[0]: data_src_args: unknown key 'spilt'"),
        ({"dataset": {"valid": [{"data_src": "nowhere"}]}}, "dataset.valid[0]: data_src 'nowhere'"),
        ({"trainer": {"max_steps": 0}}, "'trainer.max_steps' is 0; it must be at least 1"),
        ({"averaging": {"decay": 1.0}}, "'averaging.decay' is 1.0"),
        ({"model": {"dropout": 1.0}}, "'model.dropout' is 1.0"),
        ({"augmentation": {"speed_factors": [9.0]}}, "each of them must be above 0.5 and below 2"),
        ({"seed": 10**20}, "'seed' is 100000000000000000000; it must be at least 0 and at most"),
        ({"optimizer": {"lr": -1}}, "'optimizer.lr' is -1.0; it must be at least 0"),
        ({"optimizer": {"lr": float("nan")}}, "'optimizer.lr' is nan; it must be at least 0"),
        ({"optimizer": {"lr": float("inf")}}, "'optimizer.lr' is inf"),
        ({"optimizer": {"betas": [0.9]}}, "'optimizer.betas' is [0.9]; there must be two"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "each of them must be at least 0 and below 1"),
        ({"model": {"dim": 0}}, "'model.dim' is 0; it must be at least 1"),
        ({"model": {"num_heads": 0}}, "'model.num_heads' is 0; it must be at least 1"),
        ({"features": {"low_freq_hz": 9000}}, "it must be below the highest frequency, 8000 Hz"),
        ({"features": {"high_freq_hz": 8001}}, "the Nyquist frequency is 8000 Hz"),
        ({"features": {"high_freq_hz": -8000}}, "the Nyquist frequency is 8000 Hz"),
        ({"features": {"frame_length_ms": -5}}, "'features.frame_length_ms' is -5.0"),
        ({"features": {"frame_shift_ms": 0}}, "'features.frame_shift_ms' is 0.0; it must be above"),
        ({"features": {"frame_shift_ms": 0.01}}, "it must be at least 1 sample at 16000 Hz"),
        ({"features": {"num_mel_bins": 6}}, "model.subsampling.factor 4 needs at least 7"),
        ({"trainer": {"precision": "foo"}}, "'trainer.precision' is 'foo'; it may be one of"),
        ({"trainer": {"strategy": "dpp"}}, "Did you mean 'ddp'?"),
        ({"trainer": {"accelerator": "foo"}}, "'trainer.accelerator' is 'foo'"),
        *(
            ({"trainer": {"devices": value}}, "'trainer.devices' is")
            for value in ("foo", 0, "0", -2, 1.5, True, None, [], [0, -1], ["a"], {"a": 1})
        ),
        ({"trainer": {"checkpoint": {"monitor": "WER"}}}, "may be one of: valid_WER, valid_loss"),
    ],
)
def test_a_slip_is_named_when_the_system_is_made(settings: dict, message: str) -> None:
    config = OmegaConf.create({"recipe_dir": str(REPOSITORY / "egs3/mini_an4/asr"), **settings})
    with pytest.raises(ConfigError, match=re.escape(message)):
        ASRSystem(training_config=config)


def test_a_slip_in_a_test_set_is_named_when_the_system_is_made() -> None:
    recipe_dir = str(REPOSITORY / "egs3/fsdd/asr")
    config = {"recipe_dir": recipe_dir, "dataset": {"test": [{"name": "test", **_SPILT}]}}
    with pytest.raises(ConfigError, match=r"inference_config: dataset.test\[0\].*'spilt'"):
        ASRSystem(inference_config=OmegaConf.create(config))


def test_checking_a_shipped_recipe_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from espnet3.data.reference import check_references\n"
        "entry = {'data_src_args': {'split': 'train'}}\n"
        "for recipe_dir in map(Path, sys.argv[1:]):\n"
        "    check_references([entry], recipe_dir=recipe_dir, section='')\n"
        "assert not {'torch', 'lhotse'} & set(sys.modules)\n"
    )
    recipes = [str(path.parents[1]) for path in REPOSITORY.glob("egs3/*/asr/dataset/__init__.py")]
    assert len(recipes) >= 2
    subprocess.run([sys.executable, "-c", program, *recipes], check=True, cwd=REPOSITORY)


def test_every_number_has_bounds() -> None:
    defaults = OmegaConf.to_container(OmegaConf.structured(TrainingConfig))
    assert numbers(defaults) - set(CHOICES) == set(BOUNDS)


def numbers(value: object, prefix: str = "") -> set[str]:
    """Return the dotted keys below which a number, or numbers in a list, stand."""
    if isinstance(value, dict):
        return set().union(*(numbers(each, f"{prefix}.{key}") for key, each in value.items()))
    if prefix == ".augmentation.speed_factors":  # empty unless it is set
        return {prefix[1:]}
    several = value if isinstance(value, list) else [value]
    return {prefix[1:]} if any(type(each) in (int, float) for each in several) else set()


@pytest.mark.parametrize("value", ["auto", 1, 8, -1, "2", "0,1", [0], [0, 3]])
def test_devices_as_lightning_takes_them(value: object) -> None:
    ASRSystem(training_config=OmegaConf.create({"trainer": {"devices": value}}))


@pytest.mark.parametrize("factor", [4, 6])
def test_the_fewest_bins_that_are_accepted_can_be_subsampled(factor: int) -> None:
    least = next(
        bins for bins in range(1, 99) if accepted({"num_mel_bins": bins}, {"factor": factor})
    )
    ConvSubsampling(least, 8, factor=factor, channels=2)(
        torch.zeros(1, 50, least), torch.tensor([50])
    )


def accepted(features: dict, subsampling: dict) -> bool:
    config = {"features": features, "model": {"subsampling": subsampling}}
    try:
        ASRSystem(training_config=OmegaConf.create(config))
    except ConfigError:
        return False
    return True


def test_a_recipes_own_sections_are_kept() -> None:
    config = OmegaConf.create({"prepare_labels": {"x": 1}, "tokenizer": {"save_path": "t"}})
    typed = checked_training_config(ASRSystem(training_config=config))
    assert typed.prepare_labels == {"x": 1}  # type: ignore[attr-defined]


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'tokenizer.save_path' must be set"):
        checked_training_config(ASRSystem(training_config=OmegaConf.create({"seed": 1})))
