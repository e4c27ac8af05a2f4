"""Checking a config against dataclasses: misspelt keys and wrong types, named with their cure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from espnet3.utils.errors import ConfigError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig


def check_config(config: DictConfig, schema: type, *, name: str) -> DictConfig:
    """Return ``config`` typed by the dataclass ``schema``, its defaults filled in.

    Keys at the top level that the schema does not know are kept: recipes put the settings of
    their own stages there. One that nearly matches a known key is taken for a slip.

    Args:
        config: a resolved config.
        schema: a dataclass whose fields are the known keys; sections are dataclasses too.
        name: how the config is called in messages, e.g. ``training_config``.

    Raises:
        ConfigError: naming the key, what it holds, and what was expected.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    known = [field.name for field in fields(schema)]
    own: dict[str, Any] = {}
    for key in list(config):
        if key in known:
            continue
        close = get_close_matches(str(key), known, n=1, cutoff=0.8)
        if close:
            raise ConfigError(f"{name}: unknown key '{key}'. Did you mean '{close[0]}'?")
        own[str(key)] = config[key]
    checked = OmegaConf.structured(schema)
    for key in known:
        if key not in config:
            continue
        try:
            checked = OmegaConf.merge(checked, {key: config[key]})
        except OmegaConfBaseException as error:
            raise ConfigError(_explain(error, schema, key, config, name)) from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: '{key}': {error}") from error
    OmegaConf.set_struct(checked, False)
    for key, value in own.items():
        checked[key] = value
    return checked


def _explain(error: Any, schema: type, key: str, config: Any, name: str) -> str:
    from omegaconf.errors import ConfigKeyError

    full_key = str(error.full_key or key)
    if not full_key.startswith(key):
        full_key = f"{key}.{full_key}"
    parts = [part.split("[")[0] for part in full_key.split(".")]
    if isinstance(error, ConfigKeyError):
        known = _known_keys(schema, parts[:-1])
        message = f"{name}: unknown key '{full_key}'.{nearest(parts[-1], known)}"
        return message + (f" Known here: {', '.join(known)}." if known else "")
    found = _value_at(config, full_key)
    first_line = str(error.msg or error).splitlines()[0]
    return f"{name}: '{full_key}' is {found!r}, which does not fit: {first_line}"


def _value_at(config: Any, full_key: str) -> Any:
    from omegaconf import OmegaConf

    try:
        value = OmegaConf.select(config, full_key)
    except Exception:  # noqa: BLE001 - the value is only shown in the message
        return None
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _known_keys(schema: Any, path: list[str]) -> list[str]:
    """Return the field names of the dataclass found by walking ``path`` down from ``schema``."""
    current: Any = schema
    for part in path:
        if not is_dataclass(current):
            return []
        hint = get_type_hints(current).get(part)
        while hint is not None and not is_dataclass(hint):
            inner = [argument for argument in get_args(hint) if argument is not type(None)]
            hint = inner[-1] if inner else None
        current = hint
    return [field.name for field in fields(current)] if is_dataclass(current) else []
