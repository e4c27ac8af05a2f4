"""How a config names data: references, and the packages that they lead to."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from espnet3.data.dataset import Dataset
from espnet3.utils.errors import ConfigError, DataError, nearest

_KEYS = ["data_src", "data_src_args", "name"]


@dataclass(frozen=True)
class DatasetReference:
    """One entry of ``dataset.train``, ``.valid`` or ``.test``.

    Args:
        data_src: ``None`` for the recipe's own ``dataset/`` package, a recipe of ``egs3`` such as
            ``mini_an4/asr``, or a path to a recipe's folder.
        data_src_args: keywords of that package's ``Dataset``.
        name: what the entry is called in results; test sets have one.
    """

    data_src: str | None = None
    data_src_args: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    @classmethod
    def parse(cls, entry: Any) -> DatasetReference:
        """Read an entry of a config, a plain mapping or an OmegaConf one.

        Raises:
            ConfigError: when it is no mapping or has an unknown key.
        """
        if hasattr(entry, "items"):
            values = {str(key): value for key, value in entry.items()}
        else:
            raise ConfigError(
                f"A dataset reference is {entry!r}; a mapping is needed, such as "
                "{data_src_args: {split: train}}."
            )
        for key in values:
            if key not in _KEYS:
                raise ConfigError(
                    f"A dataset reference has the unknown key '{key}'.{nearest(key, _KEYS)} "
                    f"Known: {', '.join(_KEYS)}."
                )
        arguments = values.get("data_src_args") or {}
        if not hasattr(arguments, "items"):
            raise ConfigError(f"data_src_args is {arguments!r}; a mapping is needed.")
        data_src = values.get("data_src")
        if data_src is not None and not isinstance(data_src, str):
            raise ConfigError(f"data_src is {data_src!r}; a recipe such as mini_an4/asr is needed.")
        return cls(
            data_src=data_src,
            data_src_args={str(key): value for key, value in arguments.items()},
            name=values.get("name"),
        )

    def locate(self, *, recipe_dir: Path, data_dir: Path) -> tuple[Path, Path]:
        """Return the recipe folder that knows this data and the folder that holds it.

        Another recipe's data lies in that recipe's own ``data`` folder, so that it is made once
        for all who use it.

        Raises:
            ConfigError: when ``data_src`` leads to no recipe.
        """
        if self.data_src is None:
            return recipe_dir, data_dir
        import egs3

        tried = [Path(parent) / self.data_src for parent in egs3.__path__]
        tried.insert(0, recipe_dir / self.data_src)
        for folder in tried:
            if (folder / "dataset" / "__init__.py").is_file():
                return folder.resolve(), folder.resolve() / "data"
        raise ConfigError(
            f"data_src '{self.data_src}' leads to no recipe with a dataset/ package. Looked at: "
            + ", ".join(str(folder) for folder in tried)
        )


def load_dataset(
    reference: DatasetReference | Mapping[str, Any], *, recipe_dir: Path, data_dir: Path
) -> Dataset:
    """Return the data set that a config's reference names.

    Args:
        reference: the entry, parsed or as it stands in the config.
        recipe_dir: the folder of the recipe whose config it is.
        data_dir: where that recipe's own data lies.

    Raises:
        ConfigError: for an unknown recipe, or arguments its ``Dataset`` does not take.
        DataError: when the data is not there.
    """
    if not isinstance(reference, DatasetReference):
        reference = DatasetReference.parse(reference)
    recipe_dir, data_dir = reference.locate(
        recipe_dir=Path(recipe_dir).absolute(), data_dir=Path(data_dir).absolute()
    )
    dataset_class = load_package(recipe_dir).Dataset
    arguments = _arguments(reference, recipe_dir, data_dir)
    check_keywords(dataset_class, arguments, section="data_src_args")
    dataset: Dataset = dataset_class(**arguments)
    return dataset


def check_references(entries: Iterable[Any], *, recipe_dir: Path, section: str) -> None:
    """Check what can be known of references without any data: keys, recipe and arguments.

    A recipe that has no ``dataset/`` package (yet) is not an error here: not all stages need one.

    Args:
        entries: a config's list of references.
        recipe_dir: the folder of the recipe whose config it is.
        section: where they stand in it, e.g. ``training_config: dataset.train``.

    Raises:
        ConfigError: naming the reference and the key that is unknown or missing.
    """
    for index, entry in enumerate(entries):
        place = f"{section}[{index}]"
        try:
            reference = DatasetReference.parse(entry)
            folder, data_dir = reference.locate(recipe_dir=recipe_dir, data_dir=recipe_dir)
            if not (folder / "dataset" / "__init__.py").is_file():
                continue
            arguments = _arguments(reference, folder, data_dir)
            check_keywords(load_package(folder).Dataset, arguments, section="data_src_args")
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error


def _arguments(reference: DatasetReference, recipe_dir: Path, data_dir: Path) -> dict[str, Any]:
    return {**reference.data_src_args, "recipe_dir": recipe_dir, "data_dir": data_dir}


def load_package(recipe_dir: Path) -> ModuleType:
    """Import the ``dataset/`` package of a recipe by its path, wherever the recipe lies.

    Raises:
        DataError: when the recipe has none.
    """
    init = recipe_dir / "dataset" / "__init__.py"
    if not init.is_file():
        raise DataError(
            f"The recipe {recipe_dir} has no dataset package ({init} is missing). Write one with "
            "DatasetBuilder and Dataset, or name another recipe's in data_src."
        )
    # Two recipes may be in use at once, each with a package called `dataset`.
    name = f"recipe_dataset_{hashlib.sha256(str(init).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, init, submodule_search_locations=[str(init.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_keywords(
    function: Callable[..., Any], keywords: Mapping[str, Any], *, section: str
) -> None:
    """Check that ``function`` takes ``keywords``, which a person wrote in a config section.

    Raises:
        ConfigError: naming the key that is unknown or missing.
    """
    parameters = inspect.signature(function).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        known = [name for name in parameters if name not in ("self", "recipe_dir", "data_dir")]
        for key in keywords:
            if key not in parameters:
                raise ConfigError(
                    f"{section}: unknown key '{key}'.{nearest(key, known)} "
                    f"Known here: {', '.join(known) or 'none'}."
                )
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.KEYWORD_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        )
        if required and name not in keywords and name != "self":
            raise ConfigError(f"{section}: '{name}' is needed and missing.")
