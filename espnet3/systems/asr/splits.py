"""Data that a stage needs, made first where it is not there or not sound."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from espnet3.utils.errors import DataError

logger = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded")


def load_or_create(load: Callable[[], _Loaded], create: Callable[[], object]) -> _Loaded:
    """Return what ``load`` gives.

    Args:
        load: loads data, and checks it as far as the stage needs.
        create: makes the data sets; called once if they cannot be loaded.

    Raises:
        DataError: the data cannot be loaded even after ``create``.
    """
    try:
        return load()
    except DataError as error:
        logger.info("The data is not ready, so create_dataset runs first: %s", error)
    create()
    return load()
