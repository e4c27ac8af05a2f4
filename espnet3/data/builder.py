"""What a recipe's ``DatasetBuilder`` is: the steps from a source to checked manifests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class DatasetBuilder(ABC):
    """Four steps, each called with the config's ``create_dataset`` settings as keywords.

    ``recipe_dir`` and ``data_dir`` are always among them. A class need not inherit from this
    one: any with these methods serves. See :class:`espnet3.data.pinned.PinnedSourceBuilder` for
    one that does the bookkeeping.
    """

    @abstractmethod
    def is_source_prepared(self, *_: Any, **settings: Any) -> bool:
        """Return whether the source is at hand, whole and the one asked for."""

    @abstractmethod
    def prepare_source(self, *_: Any, **settings: Any) -> None:
        """Fetch, verify and place the source."""

    @abstractmethod
    def is_built(self, *_: Any, **settings: Any) -> bool:
        """Return whether manifests and audio are whole and made from this source as it is now.

        It must see recordings that were replaced: what is wrong with data is mended by making it
        again, and that is done only where this says ``False``.
        """

    @abstractmethod
    def build(self, *_: Any, **settings: Any) -> None:
        """Make manifests and audio."""
