from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf

from espnet3.utils.config_schema import check_config
from espnet3.utils.errors import ConfigError


@dataclass
class Model:
    num_layers: int = 4
    dropout: float = 0.1


@dataclass
class Training:
    model: Model = field(default_factory=Model)
    parts: list[Model] = field(default_factory=list)
    exp_dir: str | None = None


def check(**content: object) -> object:
    return check_config(OmegaConf.create(content), Training, name="training_config")


def test_defaults_are_filled_and_values_typed() -> None:
    checked = check(model={"num_layers": 6}, exp_dir="x")
    assert checked.model.num_layers == 6
    assert checked.model.dropout == 0.1


def test_a_recipes_own_settings_are_kept() -> None:
    assert check(prepare_labels={"window": 3}).prepare_labels.window == 3


def test_a_misspelt_key_in_a_section_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'model\.num_layer'.*Did you mean 'num_layers'"):
        check(model={"num_layer": 6})


def test_a_misspelt_section_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'modle'.*Did you mean 'model'"):
        check(modle={})


def test_a_wrong_type_names_key_value_and_type() -> None:
    with pytest.raises(ConfigError, match=r"'model\.num_layers' is 'six'.*[Ii]nteger"):
        check(model={"num_layers": "six"})


def test_a_section_that_is_no_mapping_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'model'"):
        check(model=3)


def test_a_mistake_inside_a_list_is_named() -> None:
    with pytest.raises(ConfigError, match=r"num_layer.*Did you mean 'num_layers'"):
        check(parts=[{"num_layer": 1}])
