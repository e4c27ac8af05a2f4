from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from espnet3.systems.base.system import BaseSystem
from espnet3.utils.errors import ConfigError

TRAINING = {"exp_dir": "/e", "data_dir": "/d", "stats_dir": "/s", "tokenizer": {"save_path": "/t"}}


def test_standard_stages_log_where_the_configs_say() -> None:
    system = BaseSystem(
        training_config=OmegaConf.create(TRAINING),
        inference_config=OmegaConf.create({"inference_dir": "/i"}),
        metrics_config=OmegaConf.create({"inference_dir": "/m"}),
    )
    assert {stage: str(path) for stage, path in system.stage_log_dirs.items()} == {
        "default": "/e",
        "create_dataset": "/d",
        "train_tokenizer": "/t",
        "collect_stats": "/s",
        "train": "/e",
        "infer": "/i",
        "measure": "/m",
        "pack_model": "/e",
    }


def test_without_configs_stages_log_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    system = BaseSystem()
    assert system.exp_dir is None
    assert system.stage_log_dirs == {"default": tmp_path / "logs"}
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_counts_from_the_recipe(tmp_path: Path) -> None:
    config = OmegaConf.create({"recipe_dir": str(tmp_path), "exp_dir": "exp/a"})
    assert BaseSystem(training_config=config).exp_dir == tmp_path / "exp" / "a"


def test_a_mapping_is_laid_over_the_standard_one() -> None:
    system = BaseSystem(
        training_config=OmegaConf.create(TRAINING),
        stage_log_mapping={
            "export": ["training_config.export_dir", "training_config.stats_dir"],
            "train": "training_config.data_dir",
        },
    )
    assert system.stage_log_dirs["export"] == Path("/s")
    assert system.stage_log_dirs["train"] == Path("/d")


def test_a_mapping_may_name_a_config_that_the_subclass_keeps() -> None:
    class MySystem(BaseSystem):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(stage_log_mapping={"export": "export_config.out_dir"}, **kwargs)
            self.export_config = OmegaConf.create({"out_dir": "/out"})

    assert MySystem().stage_log_dirs["export"] == Path("/out")


def test_a_mapping_to_a_missing_key_says_which() -> None:
    system = BaseSystem(
        training_config=OmegaConf.create(TRAINING),
        stage_log_mapping={"export": "training_config.export.dir"},
    )
    with pytest.raises(ConfigError, match=r"'export'.*training_config has no key 'export\.dir'"):
        _ = system.stage_log_dirs


def test_a_mapping_to_a_config_that_was_not_given_falls_back() -> None:
    system = BaseSystem(stage_log_mapping={"infer": "inference_config.absent"})
    assert "infer" not in system.stage_log_dirs


def test_older_spellings_are_the_same_arguments() -> None:
    config = OmegaConf.create(TRAINING)
    system = BaseSystem(train_config=config, infer_config=config, metric_config=config)
    assert system.training_config is config
    assert system.inference_config is config
    assert system.metrics_config is config
    with pytest.raises(ConfigError, match="training_config and train_config are the same"):
        BaseSystem(training_config=config, train_config=config)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="trainings_config"):
        BaseSystem(trainings_config=None)
