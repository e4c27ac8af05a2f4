"""Loading YAML configs: defaults lists, interpolation, and messages that name the file.

A config may begin with a ``defaults`` list of sibling YAML files, as in Hydra::

    defaults:
      - base              # base.yaml, at the top level
      - model: small      # model/small.yaml, below the key `model`
      - optimizer: null   # skipped
      - _self_            # this file's own content; last when it is not listed

Later entries win. Four resolvers know the file that they stand in: ``${load_line:words.txt}``
(the lines of a file as a list), ``${load_yaml:other.yaml}``, ``${config_path:../src}`` (an
absolute path) and ``${self_name:}`` (the stem of the YAML file). Relative paths in them count
from that file's folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.config_files import merge_configs, read_yaml
from espnet3.utils.config_resolvers import bind_to_file, register_resolvers
from espnet3.utils.errors import ConfigError, nearest
from espnet3.utils.masking import remember_secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig


def load_config_with_defaults(path: str | Path, resolve: bool = True) -> DictConfig:
    """Return the config in ``path``, merged over the files of its defaults list.

    Args:
        path: a YAML file.
        resolve: replace every interpolation by its value.

    Raises:
        ConfigError: a file or key is missing, or a file is not a YAML mapping; the message
            names the file that asked for it.
    """
    config = _load(Path(path), self_name=Path(path).stem)
    if resolve:
        resolve_config(config, Path(path))
    return config


def load_and_merge_config(
    path: str | Path | None,
    config_name: str,
    default_package: str | None = None,
    resolve: bool = True,
) -> DictConfig | None:
    """Return the config in ``path`` merged over a package's default of the name ``config_name``.

    Args:
        path: the user's YAML file; ``None`` gives ``None``.
        config_name: e.g. ``training.yaml``.
        default_package: package whose ``conf`` folder holds the defaults, e.g.
            ``egs3.TEMPLATE.asr``; a default that it does not have is taken as empty.
        resolve: replace every interpolation by its value.
    """
    if path is None:
        return None
    from omegaconf import OmegaConf

    own = load_config_with_defaults(path, resolve=False)
    if config_name == "training.yaml" and not own:
        raise ConfigError(
            f"{path} is empty, so that the template's large model would be trained. Write what is "
            "to be trained, or give a recipe's own config."
        )
    default = Path(str(files(default_package))) / "conf" / config_name if default_package else None
    if default is not None and default.is_file():
        # `${self_name:}` in a default means the user's file, which names the experiment.
        own = merge_configs([_load(default, self_name=Path(path).stem), own], Path(path))
    OmegaConf.set_struct(own, False)
    if resolve:
        resolve_config(own, Path(path))
    return own


def resolve_config(config: DictConfig, path: Path) -> None:
    """Replace every interpolation in ``config`` by its value, in place.

    Args:
        config: loaded from ``path``.
        path: named in messages.

    Raises:
        ConfigError: an interpolation asks for a key or file that is not there.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.resolve(config)
    except (OmegaConfBaseException, RecursionError) as error:
        key, reason = _first_unresolvable(config) or ("", error)
        if "RecursionError" in str(reason) or isinstance(reason, RecursionError):
            raise ConfigError(
                f"{path}: '{key}' leads back to its beginning: a file that it loads loads it again."
            ) from None
        if isinstance(reason.__cause__, ConfigError):
            raise ConfigError(f"{path}: '{key}': {reason.__cause__}") from error
        wanted = re.search(r"Interpolation key '([^']+)' not found", str(reason))
        hint = nearest(wanted.group(1), list(_all_keys(config))) if wanted else ""
        first_line = str(reason).splitlines()[0].rstrip(".")
        raise ConfigError(f"{path}: '{key}': {first_line}.{hint}") from error
    remember_secrets({"config": OmegaConf.to_container(config, throw_on_missing=False)})


def _load(path: Path, self_name: str, asked_by: tuple[Path, ...] = ()) -> DictConfig:
    from omegaconf import DictConfig, OmegaConf

    register_resolvers(lambda file: _load(file, self_name=file.stem))
    path = path.absolute()
    if path in asked_by:
        chain = " -> ".join(str(each) for each in (*asked_by, path))
        raise ConfigError(f"The defaults lists lead back to their beginning: {chain}")
    config = read_yaml(path, asked_by)
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    defaults = content.pop("defaults", None) or []
    if not isinstance(defaults, list):
        raise ConfigError(f"{path}: 'defaults' must be a list of YAML names.")
    own = OmegaConf.create(bind_to_file(content, path.parent, self_name))
    assert isinstance(own, DictConfig)
    parts = []
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    for entry in defaults:
        if entry == "_self_":
            parts.append(own)
        else:
            parts += _load_entry(entry, path, (*asked_by, path))
    return merge_configs(parts, path)


def _load_entry(entry: Any, holder: Path, asked_by: tuple[Path, ...]) -> list[DictConfig]:
    """Return the configs that one entry of a defaults list stands for."""
    from omegaconf import DictConfig, OmegaConf

    if isinstance(entry, str):
        child = holder.parent / _yaml_name(entry)
        return [_load(child, self_name=child.stem, asked_by=asked_by)]
    if not isinstance(entry, dict):
        raise ConfigError(f"{holder}: an entry of 'defaults' is {entry!r}; write a YAML name.")
    loaded = []
    for key, name in entry.items():
        if name is None:
            continue
        if not isinstance(name, str):
            raise ConfigError(f"{holder}: in 'defaults', '{key}' is {name!r}; write a YAML name.")
        child = holder.parent / str(key) / _yaml_name(name)
        nested = OmegaConf.create({key: _load(child, self_name=child.stem, asked_by=asked_by)})
        assert isinstance(nested, DictConfig)
        loaded.append(nested)
    return loaded


def _yaml_name(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"


def _first_unresolvable(config: Any) -> tuple[str, Exception] | None:
    """Return the first key below ``config`` whose value cannot be had, and why.

    ``OmegaConf.resolve`` says neither.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    for key in config if isinstance(config, DictConfig) else range(len(config)):
        try:
            value = config[key]
        except MissingMandatoryValue:
            continue
        except OmegaConfBaseException as error:
            return config._get_full_key(key), error
        below = _first_unresolvable(value) if OmegaConf.is_config(value) else None
        if below is not None:
            return below
    return None


def _all_keys(config: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for key in config:
        yield f"{prefix}{key}"
        below = config._get_node(key)
        if isinstance(below, DictConfig) and not below._is_none() and not below._is_missing():
            yield from _all_keys(below, f"{prefix}{key}.")
