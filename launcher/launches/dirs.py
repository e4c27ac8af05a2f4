"""Where the launch directories of a recipe are, and the name of the next one."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from launcher.config import LaunchConfig
from launcher.errors import ConfigError
from launcher.recipe import Recipe


def launches_dir(recipe: Recipe, config: LaunchConfig) -> Path:
    """Return the folder that receives the launch directories.

    Raises:
        ConfigError: its name cannot be resolved, such as ``~nobody``.
    """
    if config.launches_dir is None:
        return recipe.code_root / ".launches"
    try:
        return Path(config.launches_dir).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"launches_dir={config.launches_dir}: {error}") from error


def free_directory(recipe: Recipe, config: LaunchConfig) -> Path:
    """Return a launch directory that does not exist yet; it is not made.

    Raises:
        ConfigError: one of the name asked for (``launch_name``) exists, or it can be no name.
    """
    parent = launches_dir(recipe, config)
    if config.launch_name is not None:
        directory = parent / config.launch_name
        if directory.parent != parent or config.launch_name in (".", "..") or not directory.name:
            raise ConfigError(f"launch_name={config.launch_name} cannot be the name of a folder")
        if os.path.lexists(directory):
            raise ConfigError(
                f"there is a launch of that name already: {directory}. Choose another launch_name."
            )
        return directory
    label = re.sub(r"[^A-Za-z0-9_.]+", "-", recipe.label).strip("-.")[:80] or "recipe"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{label}"
    attempt = 1
    while (directory := parent / (name if attempt == 1 else f"{name}-{attempt}")).exists():
        attempt += 1
    return directory
