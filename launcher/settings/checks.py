"""What is wrong with settings although each has the right type: ranges, names, secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError, did_you_mean
from launcher.masking import looks_secret, mask_environment
from launcher.settings.ranges import check_ranges
from launcher.settings.stage import stage_config

if TYPE_CHECKING:
    from launcher.config import LaunchConfig

SNAPSHOT_MODES = ("none", "git", "copy")
PROBE_PLACES = ("auto", "host", "container")


def check_settings(config: LaunchConfig) -> None:
    """Refuse settings that no launch could have.

    Raises:
        ConfigError: one is out of its range, no text where it has to be one, or a secret.
    """
    groups = ("resources", "cluster", "container")
    sections = {"": config} | {f"{each}.": getattr(config, each) for each in groups}
    for section, settings in sections.items():
        check_ranges(settings, section=section)
        check_texts(settings, section)
    for key, known in (("snapshot", SNAPSHOT_MODES), ("probe", PROBE_PLACES)):
        value = getattr(config, key)
        if value not in known:
            hint = did_you_mean(value, known)
            raise ConfigError(f"there is no {key}={value}.{hint} It is one of: {', '.join(known)}.")
    _check_environment(config.env, config, "env")
    for stage in config.stages:
        section = f"stages.{stage}."
        settings = stage_config(config, str(stage))
        check_texts(settings.cluster, section)
        _check_environment(settings.env, config, f"{section}env")


def check_texts(settings: Any, section: str) -> None:
    """Refuse what a dataclass of settings has in place of texts: in lists, in mappings, alone.

    Raises:
        ConfigError: a list holds another list, a text is empty or holds a zero byte.
    """
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value) or each.name in ("stages", "env"):
            continue
        for key, text in _texts(value, f"{section}{each.name}"):
            if not isinstance(text, (str, int, float, bool)):
                raise ConfigError(f"{key} is to be a text or a number, not {text!r}.")
            if isinstance(text, str) and "\0" in text:
                raise ConfigError(f"{key} holds a zero byte, which no name and no command may.")
            if text == "" and isinstance(value, Sequence):
                raise ConfigError(f"{key} is empty. Leave it out of the list.")


def _texts(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the texts of a setting: itself, its items, and those of the lists in a mapping."""
    if value is None:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            items = inner if isinstance(inner, list) else [inner]
            yield from ((f"{key}.{name}", item) for item in items if item is not None)
    elif isinstance(value, list):
        yield from ((f"{key}[{number}]", item) for number, item in enumerate(value))
    else:
        yield key, value


def _check_environment(env: Mapping[str, Any], config: LaunchConfig, section: str) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise ConfigError(f"{section}: '{name}' cannot be the name of a variable.")
        if isinstance(value, (Mapping, list)) or "\0" in str(value):
            raise ConfigError(
                f"{section}.{name} is to be a text, without zero bytes; not {value!r}."
            )
        masked = mask_environment({name: value})[name]
        if value and (looks_secret(name) or name in config.secrets or masked != value):
            what = "holds" if masked != value and not looks_secret(name) else "looks like"
            raise ConfigError(
                f"{section}.{name} {what} a secret, and settings are written to the launch's "
                f"files. Secrets are passed by name: take {section}.{name} out of the settings, "
                f"put the variable into the launcher's environment, such as with `read -rs {name}` "
                f"and `export {name}`, and list the name: secrets='[{name}]'."
            )
