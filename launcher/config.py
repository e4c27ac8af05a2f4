"""The launcher's settings: ``conf/`` composed by Hydra; laid over it the user's own
``~/.config/launcher/launch.yaml``, the recipe's ``conf/launch.yaml``, then ``key=value`` of the
command line; all of it typed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import registry
from launcher.errors import ConfigError
from launcher.recorded.settings import settings
from launcher.settings.checks import check_settings
from launcher.settings.mistakes import about_value, known_elsewhere, nearest
from launcher.settings.ranges import seconds
from launcher.settings.resources import Resources

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF_DIR = Path(__file__).resolve().parent / "conf"
GROUPS = {"cluster": "clusters", "container": "containers"}
# What a file's clusters.<name> may hold besides the settings of that cluster.
_OF_CLUSTERS = ("resources", "stages")


@dataclass
class LaunchConfig:
    """Settings of one launch; ``conf/launch.yaml`` explains each.

    ``cluster`` and ``container`` hold the ``Settings`` of the modules that were chosen.
    """

    cluster: Any = None
    container: Any = None
    image: str = "auto"
    images_lock: str | None = None
    image_cache: str | None = None
    allow_unpinned: bool = False
    resources: Resources = field(default_factory=Resources)
    stages: dict[str, Any] = field(default_factory=dict)
    snapshot: str = "git"
    mounts: list[str] = field(default_factory=list)
    mounts_read_only: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    pass_env: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    launches_dir: str | None = None
    launch_name: str | None = None
    stop_grace_s: float = seconds(10.0, least=0, most=86400)
    probe: str = "auto"
    probe_timeout_s: float = seconds(120.0, least=1, most=86400)


def load_config(
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    *,
    recipe_dir: Path | None = None,
) -> LaunchConfig:
    """Compose the settings of a launch.

    Args:
        choices: name of the ``cluster`` and of the ``container``; None for the default.
        overrides: ``key=value`` in Hydra's grammar.
        recipe_dir: its ``conf/launch.yaml`` is used where there is one; None for no recipe.

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
    files = [user_file(), *([recipe_dir / "conf" / "launch.yaml"] if recipe_dir else [])]
    layers = [(path, _read(path)) for path in files if path.is_file()]
    for _, layer in layers:
        for group in GROUPS:  # a choice in a file: `cluster: slurm`
            if isinstance(layer.get(group), str):
                chosen = {group: layer.pop(group), **chosen}
    config = _compose(chosen)
    for path, layer in layers:
        _lay_over(config, layer, path)
    for override in settings:
        _apply(config, override)
    try:
        typed = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"launcher settings: {about_value(error)}") from error
    assert isinstance(typed, LaunchConfig)
    check_settings(typed)
    return typed


def user_file() -> Path:
    """Return the file of a person's own settings, whether it is there or not.

    Raises:
        ConfigError: one was named that is not there.
    """
    given = os.environ.get("LAUNCHER_CONFIG")
    if given:
        if not _is_there(given):
            raise ConfigError(
                f"LAUNCHER_CONFIG names {given}, where there is no file. Take the variable out of "
                f"the environment, or have it name one ({os.devnull} for no settings of your own)."
            )
        return Path(given)
    if os.environ.get("XDG_CONFIG_HOME", "").startswith("~"):  # as a shell leaves an unknown ~name
        raise ConfigError("XDG_CONFIG_HOME begins with ~; it is to be an absolute path")
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base, "launcher", "launch.yaml").expanduser()


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists() and not Path(path).is_dir()
    except OSError:  # its name is too long
        return False


def to_record(config: LaunchConfig) -> dict[str, Any]:
    """Return the settings as JSON-able values."""
    from dataclasses import asdict

    return asdict(config)


def from_record(record: Mapping[str, Any], **changed: Any) -> LaunchConfig:
    """Return the settings that ``to_record`` gave, with some of them changed.

    Raises:
        KeyError, Unfit: they are not whole.
        LauncherError: they are of a cluster or a container that is not here, or out of range.
    """
    kinds = {
        group: registry.load(kind, record[group]["name"]).Settings for group, kind in GROUPS.items()
    }
    kinds["resources"] = Resources
    typed = {
        group: settings(kind, record[group], f"config.{group}") for group, kind in kinds.items()
    }
    others = {name: value for name, value in record.items() if name not in typed}
    return replace(
        settings(LaunchConfig, others, "config"), **{**typed, "launch_name": None, **changed}
    )


def _compose(choices: Mapping[str, str]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig, OmegaConf

    for group, name in choices.items():
        registry.load(GROUPS[group], name)
    own = {group: name for group, name in choices.items() if registry.is_own(GROUPS[group], name)}
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("launch", overrides=[f"{group}={name}" for group, name in own.items()])
    OmegaConf.set_struct(composed, False)
    for group in choices.keys() - own.keys():  # a third party's, which has no file there
        composed.pop(group)
    schema = OmegaConf.structured(LaunchConfig)
    for group, kind in GROUPS.items():
        name = composed[group].name if group in composed else choices[group]
        schema[group] = OmegaConf.structured(registry.load(kind, name).Settings)
    merged = OmegaConf.merge(schema, composed)
    assert isinstance(merged, DictConfig)
    for path in _open_sections(merged):
        OmegaConf.set_struct(OmegaConf.select(merged, path), False)  # its keys are the user's
    return merged


def _open_sections(config: DictConfig) -> list[str]:
    """Return the sections that are plain mappings, such as ``env`` and ``cluster.sbatch``."""
    from omegaconf import OmegaConf

    sections = [str(name) for name in config if OmegaConf.is_dict(config[name])]
    below = [
        f"{name}.{inner}"
        for name in sections
        if OmegaConf.get_type(config, name) is not dict
        for inner in config[name]
        if OmegaConf.is_dict(config[name][inner])
    ]
    return [
        path
        for path in [*sections, *below]
        if OmegaConf.get_type(OmegaConf.select(config, path)) is dict
    ]


def _read(path: Path) -> DictConfig:
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    try:
        layer = OmegaConf.load(path)
    except RecursionError:
        raise ConfigError(f"{path}: it is nested without end, or too deeply") from None
    except (OSError, ValueError, YAMLError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where is not None else ""
        said = getattr(error, "problem", None) or _first_line(error)
        raise ConfigError(f"{path}{line}: {said}") from error
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{path} is to be a mapping of settings, such as `stop_grace_s: 30`")
    return layer


def _lay_over(config: DictConfig, layer: DictConfig, path: Path) -> None:
    """Lay a file's settings over; ``clusters.<name>`` in it is for that cluster alone.

    There it may say what stages ask for, too: ``clusters.slurm.stages.train.partition``.
    """
    from omegaconf.errors import OmegaConfBaseException

    for group, kind in GROUPS.items():
        sections = layer.pop(kind, None)
        for name, own in _sections(sections, f"{path}: {kind}").items():
            registry.load(kind, name)  # a misspelt name is refused whatever is chosen
            _sections(own, f"{path}: {kind}.{name}")
        if group in layer and layer.get(group) is None:
            raise ConfigError(f"{path}: {group} is to be the name of one, or settings of it")
        if "name" in _sections(layer.get(group), f"{path}: {group}"):
            raise ConfigError(f"{path}: {group}.name cannot be set. Choose by `{group}: NAME`.")
        own = (sections or {}).get(config[group].name)
        if own:
            of_launch = {
                key: own.pop(key) for key in _OF_CLUSTERS if group == "cluster" and key in own
            }
            layer = _merged(layer, {group: own, **of_launch})
    for key in map(str, layer):
        if key not in config:
            known = [*map(str, config), *GROUPS.values()]
            raise ConfigError(
                f"{path}: the launcher has no setting '{key}'.{nearest(key, known)} "
                f"Settings: {', '.join(known)}."
            )
    try:
        config.merge_with(layer)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {about_value(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _sections(value: Any, where: str) -> dict[str, Any]:
    from collections.abc import Mapping

    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{where} is to be a mapping, not {value!r}")
    return {str(name): inner for name, inner in (value or {}).items()}


def _merged(layer: DictConfig, more: dict[str, Any]) -> DictConfig:
    from omegaconf import DictConfig, OmegaConf

    merged = OmegaConf.merge(layer, more)
    assert isinstance(merged, DictConfig)
    return merged


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
    is_open = any(f"{parent}.".startswith(f"{path}.") for path in _open_sections(config))
    if leaf not in known and not is_open:
        raise ConfigError(_unknown_setting(config, key))
    if override.is_delete() or override.is_sweep_override():
        raise ConfigError(f"'{text}': a setting takes exactly one value")
    try:
        OmegaConf.update(config, key, override.value(), force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"'{text}': {about_value(error)}") from error


def _unknown_setting(config: DictConfig, key: str) -> str:
    sections = (*GROUPS, "resources")
    known = [
        name if name not in sections else f"{name}.{inner}"
        for name in map(str, config)
        for inner in (config[name] if name in sections else [name])
        if inner != "name"
    ]
    group, _, leaf = key.partition(".")
    elsewhere = known_elsewhere(GROUPS[group], leaf) if group in GROUPS else ""
    return (
        f"the launcher has no setting '{key}'.{elsewhere or nearest(key, known)} "
        f"Settings: {', '.join(known)}. "
        "What a recipe's stages read is set in its YAML files, such as conf/training.yaml."
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
