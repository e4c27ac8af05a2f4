"""The cuts that a config's references name, made first where they are not there yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.data import load_dataset
from espnet3.utils.errors import DataError

if TYPE_CHECKING:
    from lhotse import CutSet

logger = logging.getLogger(__name__)


def load_splits(
    references: Sequence[Any],
    *,
    recipe_dir: str | Path,
    data_dir: str | Path,
    create: Callable[[], object],
) -> list[CutSet]:
    """Return the cuts of each reference, in order.

    Args:
        references: entries of a config's ``dataset.train``, ``.valid`` or ``.test``.
        recipe_dir: the recipe's folder.
        data_dir: where the recipe's data lies.
        create: makes the data sets; called once if one of them cannot be loaded.

    Raises:
        DataError: the data cannot be loaded even after ``create``.
    """

    def load() -> list[CutSet]:
        places = {"recipe_dir": Path(recipe_dir), "data_dir": Path(data_dir)}
        return [load_dataset(reference, **places).cuts() for reference in references]

    try:
        return load()
    except DataError as error:
        logger.info("The data is not ready, so create_dataset runs first: %s", error)
    create()
    return load()
