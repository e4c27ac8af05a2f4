"""The template's YAML files say what the dataclasses take, and show every key."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import egs3.TEMPLATE.asr
from espnet3.systems.asr.inference_config import (
    BOUNDS,
    InferenceConfig,
    MetricEntry,
    MetricsConfig,
    PublicationConfig,
)
from espnet3.systems.asr.system import ASRSystem
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


@pytest.mark.parametrize("role", BOUNDS)
def test_every_number_has_bounds(role):
    defaults = OmegaConf.to_container(OmegaConf.structured(SCHEMAS[role]))
    assert numbers(defaults) == set(BOUNDS[role])


def numbers(value, prefix=""):
    """Return the dotted keys below which a number stands."""
    if isinstance(value, dict):
        return set().union(*(numbers(each, f"{prefix}.{key}") for key, each in value.items()))
    return {prefix[1:]} if type(value) in (int, float) else set()


@pytest.mark.parametrize(
    ("role", "settings", "message"),
    [
        ("inference", {"batch_size": 0}, "'batch_size' is 0; it must be at least 1"),
        ("inference", {"max_batch_duration_s": float("nan")}, "is nan; it must be above 0"),
        ("inference", {"model": {"num_threads": -1}}, "'model.num_threads' is -1"),
        ("inference", {"decoding": {"method": "gredy"}}, "Did you mean 'greedy'?"),
        ("metrics", {"bootstrap_samples": 0}, "'bootstrap_samples' is 0; it must be at least 1"),
        ("metrics", {"confusions": -1}, "'confusions' is -1; it must be at least 0"),
    ],
)
def test_a_value_out_of_range_is_named_when_the_system_is_made(role, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        ASRSystem(**{f"{role}_config": OmegaConf.create(settings)})


@pytest.mark.parametrize("role", SCHEMAS)
def test_a_misspelt_key_names_the_nearest(role):
    config = template(role)
    key = {"inference": "decodng", "metrics": "metrcs", "publication": "pack_modl"}[role]
    config[key] = 1
    with pytest.raises(ConfigError, match="Did you mean"):
        check_config(config, SCHEMAS[role], name=role)
