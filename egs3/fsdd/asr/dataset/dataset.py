"""One split of the digit strings, with all speakers or with one left out of training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.data.dataset import Dataset as BaseDataset
from espnet3.data.manifests import SUFFIX, load_cuts
from espnet3.utils.errors import ConfigError, nearest

from .strings import SPLITS, joined_strings

if TYPE_CHECKING:
    from lhotse import CutSet

_JOIN_DEFAULTS = {"min_digits": 1, "max_digits": 7, "curriculum": 0.0}


class Dataset(BaseDataset):
    """Strings of digits by one speaker each.

    Args:
        split: ``train``, ``valid`` or ``test``.
        recipe_dir: the recipe's folder.
        data_dir: where the builder put the data.
        unseen_speaker: leave this speaker wholly out of ``train`` and ``valid``; ``test`` is then
            all of his strings, made from all of his recordings.
        join: join the training recordings anew each epoch, with ``min_digits`` to ``max_digits``
            in a string; while less than the fraction ``curriculum`` of the run is done, the
            longest string grows from ``min_digits`` to ``max_digits``. ``None`` keeps the fixed
            strings in every epoch.

    Raises:
        ConfigError: for an unknown split or speaker, or a ``join`` that makes no sense.
    """

    def __init__(
        self,
        split: str,
        recipe_dir: Path,
        data_dir: Path,
        unseen_speaker: str | None = None,
        join: Mapping[str, Any] | None = None,
    ) -> None:
        if split not in list(SPLITS):  # a list in the config cannot be hashed
            raise ConfigError(
                f"There is no split '{split}'.{nearest(str(split), list(SPLITS))} "
                f"Known: {', '.join(sorted(SPLITS))}."
            )
        if join is not None and split != "train":
            raise ConfigError(f"'join' is for the training split; '{split}' has fixed strings.")
        self.split = split
        self.data_dir = Path(data_dir)
        self.unseen_speaker = unseen_speaker
        self.join = None if join is None else _checked_join(join)

    def cuts(self) -> CutSet:
        """Return the fixed strings of the split."""
        if self.unseen_speaker is None:
            return self._load(self.split)
        if self.split == "test":
            strings = self._load("train") + self._load("valid") + self._load("test")
            return self._of_speakers(strings, unseen=True)
        return self._of_speakers(self._load(self.split), unseen=False)

    def epoch_cuts(self, epoch: int, seed: int, progress: float = 0.0) -> CutSet:
        """Return the strings of one epoch: every training recording once, joined anew."""
        if self.join is None:
            return self.cuts()
        shortest, longest = int(self.join["min_digits"]), int(self.join["max_digits"])
        curriculum = float(self.join["curriculum"])
        if progress < curriculum:
            steps = longest - shortest + 1
            longest = min(longest, shortest + int(steps * progress / curriculum))
        return joined_strings(
            self._recordings, epoch=epoch, seed=seed, min_digits=shortest, max_digits=longest
        )

    @cached_property
    def _recordings(self) -> CutSet:
        recordings = self._load("train_recordings")
        if self.unseen_speaker is None:
            return recordings
        return self._of_speakers(recordings, unseen=False)

    def _load(self, name: str) -> CutSet:
        return load_cuts(self.data_dir / "utterances" / f"{name}{SUFFIX}", data_dir=self.data_dir)

    def _of_speakers(self, cuts: CutSet, *, unseen: bool) -> CutSet:
        speakers = sorted({cut.supervisions[0].speaker for cut in cuts})
        if self.unseen_speaker not in speakers:
            raise ConfigError(
                f"There is no speaker '{self.unseen_speaker}' to leave out."
                f"{nearest(str(self.unseen_speaker), speakers)} Known: {', '.join(speakers)}."
            )
        from lhotse import CutSet

        return CutSet.from_cuts(
            cut for cut in cuts if (cut.supervisions[0].speaker == self.unseen_speaker) is unseen
        )


def _checked_join(join: Mapping[str, Any]) -> dict[str, Any]:
    if not hasattr(join, "items"):
        raise ConfigError(f"data_src_args.join is {join!r}; a mapping such as {{}} is needed.")
    for key in join:
        if key not in _JOIN_DEFAULTS:
            raise ConfigError(
                f"data_src_args.join: unknown key '{key}'.{nearest(str(key), [*_JOIN_DEFAULTS])} "
                f"Known here: {', '.join(_JOIN_DEFAULTS)}."
            )
    settings = {**_JOIN_DEFAULTS, **join}
    numbers = all(isinstance(settings[key], int) for key in ("min_digits", "max_digits"))
    if not numbers or not 1 <= settings["min_digits"] <= settings["max_digits"]:
        raise ConfigError(f"data_src_args.join is {settings}; 1 <= min_digits <= max_digits.")
    if not isinstance(settings["curriculum"], int | float) or not 0 <= settings["curriculum"] <= 1:
        raise ConfigError(
            f"data_src_args.join.curriculum is {settings['curriculum']!r}; a fraction of the run "
            "between 0 and 1 is needed."
        )
    return settings
