"""Between a runner's command line and its stages: configs found, shared and checked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet3.utils.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

REQUIRED_ROLES: dict[str, tuple[str, ...]] = {
    "create_dataset": ("training",),
    "train_tokenizer": ("training",),
    "collect_stats": ("training",),
    "train": ("training",),
    "infer": ("inference",),
    "measure": ("metrics",),
    "pack_model": ("training",),
}
# Those that a stage reads where they are given.
OPTIONAL_ROLES: dict[str, tuple[str, ...]] = {"pack_model": ("publication",)}


def check_required_configs(
    stages: Sequence[str],
    given: Mapping[str, object],
    required: Mapping[str, Sequence[str]] = REQUIRED_ROLES,
) -> None:
    """Raise unless every requested stage has the configs that it needs.

    Args:
        stages: the stages to run.
        given: role (``training``, ``inference``, …) → its config or path, ``None`` if not given.
        required: stage → roles; a stage that is not named needs none.

    Raises:
        ConfigError: naming all such stages and the flags to add.
    """
    lacking = {
        stage: [role for role in required.get(stage, ()) if given.get(role) is None]
        for stage in stages
    }
    lacking = {stage: roles for stage, roles in lacking.items() if roles}
    if lacking:
        flags = dict.fromkeys(f"--{role}_config" for roles in lacking.values() for role in roles)
        raise ConfigError(
            f"Config not provided for stage(s): {', '.join(lacking)}. Use {', '.join(flags)}."
        )


def find_recipe_dir(config_paths: Sequence[Path | None]) -> Path:
    """Return the recipe's folder: where the running ``run.py`` is.

    When something else runs the recipe (a test, a notebook), it is the folder above the ``conf``
    folder that holds a given config, else the working directory.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None and Path(script).name == "run.py":
        return _tidy(Path(script)).parent
    for path in config_paths:
        if path is not None and path.absolute().parent.name == "conf":
            return _tidy(path).parent.parent
    return Path.cwd()


def locate_configs(args: argparse.Namespace, recipe_dir: Path) -> None:
    """Make the ``*_config`` paths of ``args`` absolute, in place.

    A relative path counts from the working directory; where nothing is there, from the
    recipe's folder, so that ``run.py`` works from anywhere.
    """
    for name, value in vars(args).items():
        if name.endswith("_config") and isinstance(value, Path):
            in_recipe = recipe_dir / value
            chosen = in_recipe if not value.exists() and in_recipe.exists() else value
            setattr(args, name, _tidy(chosen))


def _tidy(path: Path) -> Path:
    """Return an absolute path without ``..``; symbolic links stay as they were typed."""
    return Path(os.path.normpath(path.absolute()))


def anchor_directories(config: DictConfig, recipe_dir: Path) -> None:
    """Set ``recipe_dir`` in an unresolved config and make its relative folders absolute.

    ``exp_dir: exp/small`` counts from the recipe's folder, wherever the run was started.
    """
    from omegaconf import Node

    config["recipe_dir"] = str(recipe_dir / str(config.get("recipe_dir") or "."))
    for key in ("data_dir", "exp_dir", "stats_dir", "inference_dir"):
        node = config._get_node(key)
        value = node._value() if isinstance(node, Node) else None
        if isinstance(value, str) and not value.startswith(("/", "$", "?")):
            config[key] = f"${{recipe_dir}}/{value}"


def apply_training_experiment_context(
    training_config: DictConfig | None, other: DictConfig, path: Path
) -> None:
    """Give a config that lacks them the training config's experiment: one place names it.

    Copied are ``data_dir``, ``exp_tag`` and ``exp_dir``.

    Args:
        training_config: resolved; ``None`` when it was not given.
        other: another role's config, unresolved, changed in place.
        path: its file, named in messages.

    Raises:
        ConfigError: neither config names the experiment's folder.
    """
    for key in ("data_dir", "exp_tag", "exp_dir"):
        if training_config is not None and key in training_config and other._get_node(key) is None:
            other[key] = training_config[key]
    if other._get_node("exp_dir") is None:
        raise ConfigError(
            f"{path} does not say which experiment it belongs to. Give --training_config as well, "
            "or set exp_dir in it."
        )


def check_mandatory_values(config: DictConfig, path: Path) -> None:
    """Raise when a value that the defaults leave to the user (``???``) was not given."""
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{path} must set: {', '.join(missing)}.")
