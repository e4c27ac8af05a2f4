"""What a recipe's ``Dataset`` is: one split of recorded speech as lhotse cuts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhotse import CutSet, Recording
    from lhotse.cut import Cut


class Dataset(ABC):
    """One split of a data set.

    A recipe's class is made as ``Dataset(split=…, recipe_dir=…, data_dir=…)`` with the other
    ``data_src_args`` of its reference as further keywords.
    """

    @abstractmethod
    def cuts(self) -> CutSet:
        """Return the split's utterances: ids unique, audio on disk, text in the supervision."""

    def epoch_cuts(self, epoch: int, seed: int, progress: float = 0.0) -> CutSet:
        """Return the training cuts of one epoch, the same for the same arguments.

        By default every epoch has the same cuts. A data set of short recordings may join them
        anew each time, and may begin with short utterances.

        Args:
            epoch: counted from 0.
            seed: the run's seed.
            progress: fraction of the run's optimizer steps done when the epoch begins, in [0, 1).
        """
        return self.cuts()


def transcript(cut: Cut) -> str:
    """Return the words of a cut; those of joined cuts follow each other in time."""
    return " ".join(segment.text or "" for segment in cut.supervisions).strip()


def recordings(cut: Cut) -> Iterator[Recording]:
    """Yield the recordings that a cut is taken from: one, or those of the cuts it joins."""
    from lhotse.cut import MixedCut

    members = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    for member in members:
        if getattr(member, "recording", None) is not None:
            yield member.recording
