"""The resolvers of a config that know the file they stand in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import ListConfig

_RESOLVER_WITH_PATH = re.compile(r"\$\{(load_line|load_yaml|config_path):")
_SELF_NAME = re.compile(r"\$\{self_name:\s*\}")


def bind_to_file(value: Any, folder: Path, self_name: str) -> Any:
    """Tell the resolvers in ``value`` which file they stand in.

    OmegaConf gives a resolver its arguments only, and after a merge nobody knows from which
    file a value came: so each relative path gets its folder as a second argument.
    """
    if isinstance(value, dict):
        return {key: bind_to_file(item, folder, self_name) for key, item in value.items()}
    if isinstance(value, list):
        return [bind_to_file(item, folder, self_name) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    value = _SELF_NAME.sub(lambda _: self_name, value)
    bound, position = "", 0
    for match in _RESOLVER_WITH_PATH.finditer(value):
        end = _closing_brace(value, match.end())
        if end < 0 or match.start() < position:
            continue
        bound += f"{value[position:end]},{_quote(str(folder))}"
        position = end
    return bound + value[position:]


def _closing_brace(text: str, start: int) -> int:
    """Return the index of the brace that closes the one before ``start``, or -1."""
    depth = 1
    for index in range(start, len(text)):
        if text[index] == "}":
            depth -= 1
        elif text.startswith("${", index):
            depth += 1
        if depth == 0:
            return index
    return -1


def _quote(text: str) -> str:
    """Return ``text`` as a quoted value of OmegaConf's grammar."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def register_resolvers(load: Callable[[Path], Any]) -> None:
    """Make the resolvers known to OmegaConf; ``load`` reads what ``load_yaml`` names."""
    from omegaconf import OmegaConf

    def load_yaml(path: str, folder: str = ".") -> Any:
        file = Path(_config_path(path, folder))
        if not file.is_file():
            raise ConfigError(f"${{load_yaml:{path}}}: no such file: {file}")
        return load(file)

    for name, resolver in (
        ("load_line", _load_line),
        ("load_yaml", load_yaml),
        ("config_path", _config_path),
    ):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, resolver)


def _config_path(path: str, folder: str = ".") -> str:
    return str((Path(folder) / path).resolve())


def _load_line(path: str, folder: str = ".") -> ListConfig:
    from omegaconf import OmegaConf

    file = Path(_config_path(path, folder))
    try:
        return OmegaConf.create(file.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise ConfigError(f"${{load_line:{path}}}: {file}: {error.strerror}") from error
