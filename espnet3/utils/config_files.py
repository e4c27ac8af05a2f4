"""Reading YAML files and laying them over each other, with messages that name file and key."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.errors import ConfigError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig


def read_yaml(path: Path, asked_by: tuple[Path, ...] = ()) -> DictConfig:
    """Return the mapping in the YAML file ``path``.

    Args:
        path: the file.
        asked_by: the files whose defaults lists led here, outermost first; for messages.

    Raises:
        ConfigError: there is no such file, or it is no mapping in YAML.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import GrammarParseError, KeyValidationError

    source = f" (named in the defaults of {asked_by[-1]})" if asked_by else ""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        # OmegaConf takes plain text for a key without a value.
        is_mapping = root is None or isinstance(root, yaml.MappingNode)
        config = OmegaConf.create(text) if is_mapping else None
    except FileNotFoundError:
        beside = sorted(file.stem for file in path.parent.glob("*.yaml"))
        there = f" Configs there: {', '.join(beside)}." if beside else ""
        raise ConfigError(
            f"Config file not found: {path}{source}.{nearest(path.stem, beside)}{there}"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"Config is a folder, not a YAML file: {path}{source}.") from None
    except PermissionError:
        raise ConfigError(f"Config file may not be read: {path}{source}.") from None
    except GrammarParseError as error:
        raise ConfigError(
            f"{path}{source}: '{error.full_key}': the interpolation ${{…}} cannot be read: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except KeyValidationError as error:
        place = f"below '{error.full_key}'" if error.full_key else "at the top"
        raise ConfigError(
            f"{path}{source}: a key {place} cannot be one ({str(error).splitlines()[0]}). Write it "
            "as text, in quotes if it is null, a date or a list."
        ) from error
    except RecursionError:
        raise ConfigError(
            f"{path}{source}: an alias (*name) stands inside of what it names."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}{source} is not valid YAML: {error}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}{source} must be a mapping of keys to values.")
    return config


def merge_configs(parts: list[DictConfig], path: Path) -> DictConfig:
    """Return ``parts``, each laid over the ones before, for the config in ``path``.

    Raises:
        ConfigError: one has a list where another has a mapping.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import ConfigTypeError

    try:
        merged = OmegaConf.merge(*parts)
    except ConfigTypeError as error:
        for lower, upper in pairwise(parts):
            _check_shapes(lower, upper, path)
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}.") from error
    assert isinstance(merged, DictConfig)
    return merged


def _check_shapes(lower: Any, upper: Any, path: Path) -> None:
    """Raise where ``upper`` holds a list and ``lower`` a mapping, or the reverse."""
    from omegaconf import OmegaConf

    for key in upper:
        below, above = lower._get_node(key), upper._get_node(key)
        if OmegaConf.is_dict(below) and OmegaConf.is_dict(above):
            _check_shapes(below, above, path)
        elif OmegaConf.is_config(below) and OmegaConf.is_config(above):
            kinds = ["a list", "a mapping"]
            found, wanted = kinds if OmegaConf.is_list(above) else reversed(kinds)
            if type(below) is not type(above):
                raise ConfigError(
                    f"{path}: '{above._get_full_key(None)}' is {found}; {wanted} is needed."
                )
