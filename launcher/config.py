"""The launcher's settings: ``conf/`` composed by Hydra, the recipe's ``conf/launch.yaml`` laid over
it, then ``key=value`` of the command line; all of it typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import registry
from launcher.errors import ConfigError, did_you_mean
from launcher.masking import looks_secret
from launcher.ranges import check_ranges, seconds

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF_DIR = Path(__file__).resolve().parent / "conf"
GROUPS = {"cluster": "clusters", "container": "containers"}


@dataclass
class LaunchConfig:
    """Settings of one launch; ``conf/launch.yaml`` explains each.

    ``cluster`` and ``container`` hold the ``Settings`` of the modules that were chosen.
    """

    cluster: Any = None
    container: Any = None
    launches_dir: str | None = None
    stop_grace_s: float = seconds(10.0, least=0, most=86400)
    probe_timeout_s: float = seconds(120.0, least=1, most=86400)
    env: dict[str, str] = field(default_factory=dict)


def load_config(
    choices: Mapping[str, str | None], overrides: Sequence[str], *, recipe_dir: Path
) -> LaunchConfig:
    """Compose the settings of a launch.

    Args:
        choices: name of the ``cluster`` and of the ``container``; None for the default.
        overrides: ``key=value`` in Hydra's grammar.
        recipe_dir: its ``conf/launch.yaml`` is used where there is one.

    Raises:
        UsageError: no cluster or container of that name.
        ConfigError: a key is unknown, or a value is of the wrong type, out of its range, or a
            secret.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    chosen = {group: name for group, name in choices.items() if name is not None}
    settings = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in GROUPS:  # cluster=local says the same as --cluster local
            chosen[key] = value
        else:
            settings.append(override)
    config = _compose(chosen)
    recipe_file = recipe_dir / "conf" / "launch.yaml"
    if recipe_file.is_file():
        _lay_over(config, recipe_file)
    for override in settings:
        _apply(config, override)
    try:
        typed = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"launcher settings: {_first_line(error)}") from error
    assert isinstance(typed, LaunchConfig)
    check_ranges(typed)
    for group in GROUPS:
        check_ranges(getattr(typed, group), section=f"{group}.")
    _refuse_secrets(typed.env)
    return typed


def to_record(config: LaunchConfig) -> dict[str, Any]:
    """Return the settings as JSON-able values."""
    from dataclasses import asdict

    return asdict(config)


def _refuse_secrets(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if value and looks_secret(name):
            raise ConfigError(
                f"env.{name} looks like a secret, and settings are written to the launch's files. "
                f"Stages inherit the environment of the launcher: take env.{name} out of the "
                f"settings and put the variable there, such as with `read -rs {name}` and "
                f"`export {name}`."
            )


def _compose(choices: Mapping[str, str]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig, OmegaConf

    for group, name in choices.items():
        registry.load(GROUPS[group], name)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("launch", overrides=[f"{group}={n}" for group, n in choices.items()])
    schema = OmegaConf.structured(LaunchConfig)
    for group, kind in GROUPS.items():
        module = registry.load(kind, composed[group].name)
        schema[group] = OmegaConf.structured(module.Settings)
    merged = OmegaConf.merge(schema, composed)
    assert isinstance(merged, DictConfig)
    OmegaConf.set_struct(merged["env"], False)  # its keys are the user's
    return merged


def _lay_over(config: DictConfig, path: Path) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config.merge_with(OmegaConf.load(path))
    except OmegaConfBaseException as error:
        known = _keys(config, error.parent_node)
        hint = did_you_mean(str(error.key), known)
        raise ConfigError(f"{path}: {_first_line(error)}{hint}") from error
    except ValueError as error:  # not a mapping, or not YAML
        raise ConfigError(f"{path}: {error}") from error


def _apply(config: DictConfig, text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(
            f"'{text}' is not a setting: {_first_line(error)}. "
            "Write key=value, and quote what the shell or a comma would split: key='\"a, b\"'."
        ) from error
    key = override.key_or_group
    parent, _, leaf = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    known = list(section) if OmegaConf.is_dict(section) else []
    if leaf not in known and parent != "env":
        raise ConfigError(_unknown_setting(config, key))
    if override.is_delete() or override.is_sweep_override():
        raise ConfigError(f"'{text}': a setting takes exactly one value")
    try:
        OmegaConf.update(config, key, override.value(), force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"'{text}': {_first_line(error)}") from error


def _unknown_setting(config: DictConfig, key: str) -> str:
    known = [
        name if name not in GROUPS else f"{name}.{inner}"
        for name in map(str, config)
        for inner in (config[name] if name in GROUPS else [name])
        if inner != "name"
    ]
    return (
        f"the launcher has no setting '{key}'.{did_you_mean(key, known)} "
        f"Settings: {', '.join(known)}. "
        "What a recipe's stages read is set in its YAML files, such as conf/training.yaml."
    )


def _keys(config: DictConfig, node: Any) -> list[str]:
    return [str(key) for key in (node if node is not None else config)]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
