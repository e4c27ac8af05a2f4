"""A key that a config lacks is the person's mistake; in any other mapping it is a defect."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from espnet3.utils.config_keys import missing_keys_named
from espnet3.utils.errors import ConfigError


def test_file_key_and_nearest_key_are_named() -> None:
    config = OmegaConf.create({"most_freqent": 3})
    system = SimpleNamespace(count_words_config=config)
    args = Namespace(count_words_config=Path("conf/count_words.yaml"))
    message = (
        r"conf/count_words\.yaml has no key 'most_frequent', which test_config_keys\.py, line \d+, "
        r"asks for\. Did you mean 'most_freqent'"
    )
    with pytest.raises(ConfigError, match=message), missing_keys_named(system, args):
        _ = config.most_frequent
    message = r"^count_words_config has no key 'x'"
    with pytest.raises(ConfigError, match=message), missing_keys_named(system, None):
        _ = config["x"]


def test_a_mapping_of_the_code_itself_stays_a_defect() -> None:
    with pytest.raises(ConfigAttributeError), missing_keys_named(SimpleNamespace(), None):
        _ = OmegaConf.create({"a": 1}).b
