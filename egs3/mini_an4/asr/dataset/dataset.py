"""One split of mini AN4."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from espnet3.data.dataset import Dataset as BaseDataset
from espnet3.data.manifests import SUFFIX, load_cuts
from espnet3.utils.errors import ConfigError, nearest

if TYPE_CHECKING:
    from lhotse import CutSet

# Five utterances are too few to hold any back: validation watches the training set itself.
_MANIFESTS = {"train": "train", "valid": "train", "test": "test"}


class Dataset(BaseDataset):
    """The utterances of a split: ``train`` (5), ``valid`` (the same 5) or ``test`` (2).

    Args:
        split: the split's name.
        recipe_dir: the recipe's folder.
        data_dir: where the builder put the data.

    Raises:
        ConfigError: for an unknown split.
    """

    def __init__(self, split: str, recipe_dir: Path, data_dir: Path) -> None:
        if split not in list(_MANIFESTS):  # a list in the config cannot be hashed
            raise ConfigError(
                f"There is no split '{split}'.{nearest(str(split), list(_MANIFESTS))} "
                f"Known: {', '.join(_MANIFESTS)}."
            )
        self.split = split
        self.data_dir = Path(data_dir)

    def cuts(self) -> CutSet:
        """Return the utterances of the split."""
        manifest = self.data_dir / "utterances" / f"{_MANIFESTS[self.split]}{SUFFIX}"
        return load_cuts(manifest, data_dir=self.data_dir)
