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
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.errors import ConfigError, nearest
from espnet3.utils.masking import remember_secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

_RESOLVER_WITH_PATH = re.compile(r"\$\{(load_line|load_yaml|config_path):")
_SELF_NAME = re.compile(r"\$\{self_name:\s*\}")


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
        own = _merge([_load(default, self_name=Path(path).stem), own], Path(path))
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

    _register_resolvers()
    path = path.absolute()
    if path in asked_by:
        chain = " -> ".join(str(each) for each in (*asked_by, path))
        raise ConfigError(f"The defaults lists lead back to their beginning: {chain}")
    config = _read_yaml(path, asked_by)
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    defaults = content.pop("defaults", None) or []
    if not isinstance(defaults, list):
        raise ConfigError(f"{path}: 'defaults' must be a list of YAML names.")
    own = OmegaConf.create(_bind(content, path.parent, self_name))
    assert isinstance(own, DictConfig)
    parts = []
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    for entry in defaults:
        if entry == "_self_":
            parts.append(own)
        else:
            parts += _load_entry(entry, path, (*asked_by, path))
    return _merge(parts, path)


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


def _read_yaml(path: Path, asked_by: tuple[Path, ...]) -> DictConfig:
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


def _merge(parts: list[DictConfig], path: Path) -> DictConfig:
    """Return ``parts`` laid over each other for the config in ``path``."""
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


def _bind(value: Any, folder: Path, self_name: str) -> Any:
    """Tell the resolvers in ``value`` which file they stand in.

    OmegaConf gives a resolver its arguments only, and after a merge nobody knows from which
    file a value came: so each relative path gets its folder as a second argument.
    """
    if isinstance(value, dict):
        return {key: _bind(item, folder, self_name) for key, item in value.items()}
    if isinstance(value, list):
        return [_bind(item, folder, self_name) for item in value]
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


def _register_resolvers() -> None:
    from omegaconf import OmegaConf

    for name, resolver in (
        ("load_line", _load_line),
        ("load_yaml", _load_yaml),
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


def _load_yaml(path: str, folder: str = ".") -> Any:
    file = Path(_config_path(path, folder))
    if not file.is_file():
        raise ConfigError(f"${{load_yaml:{path}}}: no such file: {file}")
    return _load(file, self_name=file.stem)
