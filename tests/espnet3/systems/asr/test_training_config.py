"""What a training config may hold, and what a slip in it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from espnet3.systems.asr.system import ASRSystem
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
        ({"augmentation": {"speed_factors": [9.0]}}, "each must lie between 0.5 and 2"),
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


def test_a_recipes_own_sections_are_kept() -> None:
    config = OmegaConf.create({"prepare_labels": {"x": 1}, "tokenizer": {"save_path": "t"}})
    typed = checked_training_config(ASRSystem(training_config=config))
    assert typed.prepare_labels == {"x": 1}  # type: ignore[attr-defined]


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'tokenizer.save_path' must be set"):
        checked_training_config(ASRSystem(training_config=OmegaConf.create({"seed": 1})))
