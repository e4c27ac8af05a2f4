"""Which recordings form a string of digits: fixed for every split, or anew each epoch."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut
    from lhotse.cut import Cut

WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
#: Indices of the recordings, of every digit and speaker, in each split.
SPLITS = {"test": range(0, 5), "valid": range(5, 10), "train": range(10, 50)}
DIGITS_PER_STRING = 5


class DigitString(NamedTuple):
    """A string of digits by one speaker; ``takes`` are its (digit, index) in order."""

    utterance_id: str
    speaker: str
    takes: list[tuple[int, int]]

    @property
    def text(self) -> str:
        """Return the words, e.g. ``THREE ZERO NINE ONE ONE``."""
        return " ".join(WORDS[digit] for digit, _ in self.takes)


def fixed_strings(split: str, speakers: Iterable[str]) -> Iterator[DigitString]:
    """Yield the fixed strings of a split, each recording used once.

    Ids, order and shuffling are those of the strings on which other toolkits were measured, so
    that error rates compare: do not change them.
    """
    for speaker in speakers:
        takes = [(digit, index) for digit in range(10) for index in SPLITS[split]]
        random.Random(f"{split}-{speaker}").shuffle(takes)
        for number, begin in enumerate(range(0, len(takes), DIGITS_PER_STRING)):
            chosen = takes[begin : begin + DIGITS_PER_STRING]
            digits = "".join(str(digit) for digit, _ in chosen)
            yield DigitString(f"{speaker}-{split}-{number:03d}-{digits}", speaker, chosen)


def joined_strings(
    recordings: Iterable[MonoCut], *, epoch: int, seed: int, min_digits: int, max_digits: int
) -> CutSet:
    """Join every recording into one string of its speaker, of a random number of digits.

    The last string of a speaker takes what is left and may be shorter than ``min_digits``.

    Args:
        recordings: cuts of single digits, each with its speaker in the supervision.
        epoch: with ``seed``, fixes the strings.
        seed: the run's seed.
        min_digits: the shortest string.
        max_digits: the longest string; lengths between are equally likely.
    """
    from lhotse import CutSet

    by_speaker: dict[str, list[MonoCut]] = defaultdict(list)
    for recording in recordings:
        by_speaker[recording.supervisions[0].speaker].append(recording)
    strings: list[Cut] = []
    for speaker, own in sorted(by_speaker.items()):
        rng = random.Random(f"{seed}-{epoch}-{speaker}")
        order = sorted(own, key=lambda cut: cut.id)
        rng.shuffle(order)
        begin = 0
        while begin < len(order):
            length = rng.randint(min_digits, max_digits)
            strings.append(_join(order[begin : begin + length], f"{speaker}-{epoch}-{begin:03d}"))
            begin += length
    return CutSet.from_cuts(strings)


def _join(recordings: list[MonoCut], utterance_id: str) -> Cut:
    """Return what ``cut.append`` gives for all recordings, in a seventh of its time.

    A training run joins 2,400 recordings a hundred times over.
    """
    from lhotse.cut import MixedCut
    from lhotse.cut.mixed import MixTrack
    from lhotse.utils import add_durations

    if len(recordings) == 1:
        return recordings[0].with_id(utterance_id)
    tracks, offset_s = [], 0.0
    for recording in recordings:
        tracks.append(MixTrack(cut=recording, offset=offset_s))
        offset_s = add_durations(
            offset_s, recording.duration, sampling_rate=recording.sampling_rate
        )
    return MixedCut(id=utterance_id, tracks=tracks)
