"""The template's YAML files say what the dataclasses take, and show every key."""

from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import egs3.TEMPLATE.asr
from espnet3.systems.asr.inference_config import (
    InferenceConfig,
    MetricEntry,
    MetricsConfig,
    PublicationConfig,
)
from espnet3.utils.config_schema import check_config
from espnet3.utils.errors import ConfigError

# Set by the runner for every config.
PLACES = {"recipe_dir", "data_dir", "exp_tag", "exp_dir"}
SCHEMAS = {
    "inference": InferenceConfig,
    "metrics": MetricsConfig,
    "publication": PublicationConfig,
}


def template(role):
    return OmegaConf.load(Path(egs3.TEMPLATE.asr.__file__).parent / "conf" / f"{role}.yaml")


@pytest.mark.parametrize("role", SCHEMAS)
def test_the_template_shows_every_key_with_its_default(role):
    shown = OmegaConf.to_container(template(role), resolve=False)
    defaults = {key: value for key, value in asdict(SCHEMAS[role]()).items() if key not in PLACES}
    assert set(shown) == set(defaults)
    for key in set(shown) - {"inference_dir", "dataset", "metrics"}:
        assert shown[key] == defaults[key], key


def test_the_template_scores_words_and_characters_as_they_are():
    metrics = check_config(template("metrics"), MetricsConfig, name="metrics_config").metrics
    assert [entry.metric["_target_"].rsplit(".", 1)[1] for entry in metrics] == ["WER", "CER"]
    assert all(entry.metric["clean_types"] is None for entry in metrics)
    assert all(entry.inputs == asdict(MetricEntry())["inputs"] for entry in metrics)


@pytest.mark.parametrize("role", SCHEMAS)
def test_a_misspelt_key_names_the_nearest(role):
    config = template(role)
    key = {"inference": "decodng", "metrics": "metrcs", "publication": "pack_modl"}[role]
    config[key] = 1
    with pytest.raises(ConfigError, match="Did you mean"):
        check_config(config, SCHEMAS[role], name=role)
