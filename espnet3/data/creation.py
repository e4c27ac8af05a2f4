"""The create_dataset stage: every data set that a config names, made and looked over."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.data.checks import check_cuts
from espnet3.data.dataset import Dataset
from espnet3.data.reference import (
    DatasetReference,
    check_keywords,
    load_dataset,
    load_package,
)
from espnet3.utils.errors import ConfigError
from espnet3.utils.reuse import Kept

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)
_STEPS = ("is_source_prepared", "prepare_source", "is_built", "build")


def create_dataset(config: DictConfig) -> dict[str, dict[str, float]]:
    """Make all data that ``config.dataset`` names, or say that it is kept.

    The settings of the section ``create_dataset`` go to the recipe's own builder; another
    recipe's data is made by that recipe's defaults.

    Args:
        config: a resolved training or inference config with ``recipe_dir``, ``data_dir``,
            ``dataset`` and, if wanted, ``create_dataset``.

    Returns:
        for each entry, e.g. ``train``: ``utterances`` and ``minutes``.

    Raises:
        ConfigError: for a reference or setting that makes no sense.
        DataError: for data that cannot be used.
        StorageError: when the disk is full or the folder cannot be written.
    """
    recipe_dir, data_dir = Path(config.recipe_dir), Path(config.data_dir)
    settings = dict(config.get("create_dataset") or {})
    references = dict(_references(config))
    if not references:
        raise ConfigError(
            "The config names no data. Give it a section such as "
            "dataset: {train: [{data_src_args: {split: train}}]}."
        )
    places = {
        reference.data_src: reference.locate(recipe_dir=recipe_dir, data_dir=data_dir)
        for reference in references.values()
    }
    made = [
        _make(recipe, data, settings if data_src is None else {})
        for data_src, (recipe, data) in places.items()
    ]
    figures: dict[str, dict[str, float]] = {}
    for name, reference in references.items():
        dataset = load_dataset(reference, recipe_dir=recipe_dir, data_dir=data_dir)
        figures[name] = _look_over(dataset, name)
    return figures if any(made) else Kept(figures)


def _make(recipe_dir: Path, data_dir: Path, settings: Mapping[str, Any]) -> bool:
    """Make what is not there; tell whether anything had to be made."""
    builder = load_package(recipe_dir).DatasetBuilder()
    keywords = {**settings, "recipe_dir": recipe_dir, "data_dir": data_dir}
    for step in _STEPS:
        check_keywords(getattr(builder, step), keywords, section="create_dataset")
    is_source_kept = builder.is_source_prepared(**keywords)
    if not is_source_kept:
        builder.prepare_source(**keywords)
    is_data_kept = builder.is_built(**keywords)
    if not is_data_kept:
        builder.build(**keywords)
    return not (is_source_kept and is_data_kept)


def _references(config: DictConfig) -> Iterator[tuple[str, DatasetReference]]:
    """Yield a readable name and the reference for every entry of ``config.dataset``."""
    seen: set[str] = set()
    for part, entries in (config.get("dataset") or {}).items():
        if not isinstance(entries, list | tuple) and not _is_list(entries):
            continue
        for index, entry in enumerate(entries):
            reference = DatasetReference.parse(entry)
            name = reference.name or (part if len(entries) == 1 else f"{part}[{index}]")
            if name in seen:
                raise ConfigError(f"dataset.{part} names two entries '{name}'.")
            seen.add(name)
            yield name, reference


def _is_list(value: Any) -> bool:
    from omegaconf import OmegaConf

    return OmegaConf.is_list(value)


def _look_over(dataset: Dataset, name: str) -> dict[str, float]:
    cuts = dataset.cuts()
    check_cuts(cuts, name=name)
    utterances = list(cuts)
    minutes = sum(cut.duration for cut in utterances) / 60
    logger.info("%s: %d utterances, %.2f minutes", name, len(utterances), minutes)
    return {"utterances": len(utterances), "minutes": round(minutes, 2)}
