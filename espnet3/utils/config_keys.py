"""A key that a stage asks for and its config does not have, told as a mistake in the config."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet3.utils.errors import ConfigError, nearest


@contextmanager
def missing_keys_named(system: Any, args: argparse.Namespace | None) -> Iterator[None]:
    """Turn OmegaConf's error for a missing key of a system's config into a :class:`ConfigError`.

    Args:
        system: its ``*_config`` attributes are the configs.
        args: the parsed command line; its ``*_config`` values are the configs' paths.

    Raises:
        ConfigError: naming the file, the key, the nearest key there, and the line that asked.
    """
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    try:
        yield
    except (ConfigAttributeError, ConfigKeyError) as error:
        name = _config_of(error, system)
        if name is None:
            raise  # not of a config that a person gave
        found = [str(key) for key in error.parent_node or ()]
        raise ConfigError(
            f"{getattr(args, name, None) or name} has no key '{error.full_key}', which "
            f"{_who_asked(error)} asks for.{nearest(str(error.key), found)} "
            f"Found there: {', '.join(found) or 'nothing'}."
        ) from error


def _config_of(error: Any, system: Any) -> str | None:
    """Return the name of the system's config that ``error`` is about."""
    if error.parent_node is None:
        return None
    root = error.parent_node._get_root()
    configs = {name: value for name, value in vars(system).items() if name.endswith("_config")}
    return next((name for name, value in configs.items() if value is root), None)


def _who_asked(error: Exception) -> str:
    """Return file and line of the code that asked OmegaConf for the key."""
    frames = traceback.extract_tb(error.__traceback__)
    asked = [frame for frame in frames if "omegaconf" not in Path(frame.filename).parts]
    return f"{Path(asked[-1].filename).name}, line {asked[-1].lineno},"
