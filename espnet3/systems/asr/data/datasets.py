"""The cuts of a training config's dataset references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from espnet3.data import Dataset, check_cuts, load_dataset
from espnet3.data.fingerprint import fingerprint
from espnet3.systems.asr.splits import load_or_create
from espnet3.systems.asr.training_config import TrainingConfig
from espnet3.utils.errors import ConfigError


class CutSource:
    """The cuts of several dataset references, as one."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = datasets
        self.cuts = CutSet.from_cuts([cut for dataset in datasets for cut in dataset.cuts()])

    def epoch_cuts(self, epoch: int, seed: int, progress: float) -> CutSet:
        """Return the cuts of one epoch; a dataset may make new ones each time.

        Args:
            epoch: counts from 0.
            seed: with ``epoch`` decides what is random.
            progress: share of the training done when the epoch begins, in [0, 1).
        """
        cuts: list[Cut] = []
        for dataset in self._datasets:
            cuts.extend(dataset.epoch_cuts(epoch, seed, progress))
        return CutSet.from_cuts(cuts)

    def digest(self) -> str:
        """Return a hash of what is trained on: the cuts, and those made for the first epoch."""
        cuts = list(self.cuts)
        for dataset in self._datasets:
            if type(dataset).epoch_cuts is not Dataset.epoch_cuts:
                cuts.extend(dataset.epoch_cuts(epoch=0, seed=0))
        return fingerprint(cuts)


def load_split(config: TrainingConfig, split: str, *, create: Callable[[], object]) -> CutSource:
    """Return the cuts of ``dataset.train`` or ``dataset.valid``, checked.

    Args:
        config: the training config.
        split: ``train`` or ``valid``.
        create: makes the data sets; called once if one of them is not there yet, or not sound.

    Raises:
        ConfigError: the config names no dataset for ``split``.
        DataError: an empty split, audio that is missing or cannot be read, an empty transcript.
    """
    references = getattr(config.dataset, split)
    if not references:
        raise ConfigError(
            f"training_config: 'dataset.{split}' is empty. Give it at least one reference, such as"
            f" {split}: [{{data_src_args: {{split: {split}}}}}]."
        )

    def load() -> CutSource:
        places = {"recipe_dir": Path(config.recipe_dir), "data_dir": Path(config.data_dir)}
        source = CutSource([load_dataset(reference, **places) for reference in references])
        check_cuts(source.cuts, name=split, sample_rate_hz=config.features.sample_rate_hz)
        return source

    return load_or_create(load, create)
