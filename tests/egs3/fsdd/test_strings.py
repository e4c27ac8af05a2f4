"""Strings of digits: fixed ones that compare with other toolkits, and ones joined anew."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, MonoCut

from egs3.fsdd.asr.dataset.strings import SPLITS, WORDS, fixed_strings, joined_strings
from espnet3.data import transcript
from espnet3.data.audio import write_wav
from espnet3.data.manifests import utterance_cut

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@pytest.fixture
def recordings(tmp_path: Path) -> CutSet:
    """Return single digits by two speakers, of lengths that no frame grid divides."""
    cuts = []
    for speaker in ("ann", "bob"):
        for number in range(23):
            digit, num_samples = number % 10, 401 + 37 * number
            path = tmp_path / f"{digit}_{speaker}_{number}.wav"
            samples = np.random.default_rng(number).integers(-99, 99, num_samples)
            write_wav(path, samples.astype(np.int16), 8000)
            cuts.append(
                utterance_cut(
                    path.stem,
                    text=WORDS[digit],
                    speaker=speaker,
                    audio=path,
                    num_samples=num_samples,
                    sample_rate_hz=8000,
                )
            )
    return CutSet.from_cuts(cuts)


def joined(recordings: CutSet, **changes: int) -> list[MonoCut]:
    asked = {"epoch": 0, "seed": 0, "min_digits": 1, "max_digits": 7, **changes}
    return list(joined_strings(recordings, **asked))


def members(cut: MonoCut) -> list[str]:
    return [segment.id for segment in cut.supervisions]


def test_fixed_strings_are_those_on_which_others_were_measured() -> None:
    """The digest was taken from the manifests of the script that made the baseline's data."""
    lines = []
    for split in ("train", "valid", "test"):
        strings = sorted(fixed_strings(split, SPEAKERS))
        lines += [f"{string.utterance_id}\t{string.text}\n" for string in strings]
    assert len(lines) == 600
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert digest == "929fadaab9e34d0222b4a2d947d3d425d59eb86fc09864e8c298a4119a0b9062"


@pytest.mark.parametrize("split", SPLITS)
def test_fixed_strings_use_every_recording_once(split: str) -> None:
    used = Counter(
        (string.speaker, *take)
        for string in fixed_strings(split, SPEAKERS)
        for take in string.takes
    )
    assert set(used.values()) == {1}
    assert len(used) == len(SPEAKERS) * 10 * len(SPLITS[split])


def test_an_epoch_uses_every_recording_once(recordings: CutSet) -> None:
    used = Counter(name for cut in joined(recordings) for name in members(cut))
    assert used == Counter(cut.id for cut in recordings)


def test_a_string_has_one_speaker_and_a_unique_id(recordings: CutSet) -> None:
    strings = joined(recordings)
    assert all(len({segment.speaker for segment in cut.supervisions}) == 1 for cut in strings)
    assert len({cut.id for cut in strings}) == len(strings)


def test_the_same_seed_and_epoch_give_the_same_strings(recordings: CutSet) -> None:
    first = joined(recordings, epoch=3, seed=1)
    shuffled = CutSet.from_cuts(reversed(list(recordings)))
    assert [members(cut) for cut in first] == [
        members(cut) for cut in joined(shuffled, epoch=3, seed=1)
    ]
    for other in ({"epoch": 4, "seed": 1}, {"epoch": 3, "seed": 2}):
        assert [members(cut) for cut in first] != [
            members(cut) for cut in joined(recordings, **other)
        ]


def test_lengths_stay_within_their_bounds(recordings: CutSet) -> None:
    lengths = Counter(
        len(members(cut))
        for epoch in range(30)
        for cut in joined(recordings, epoch=epoch, min_digits=2, max_digits=4)
    )
    assert set(lengths) <= {1, 2, 3, 4}
    assert lengths[1] <= 2 * 30  # what is left of a speaker's recordings
    assert min(lengths[2], lengths[3], lengths[4]) > 50


def test_joining_is_what_lhotse_appends(recordings: CutSet) -> None:
    by_id = {cut.id: cut for cut in recordings}
    for string in joined(recordings):
        first, *others = [by_id[name] for name in members(string)]
        appended = first
        for other in others:
            appended = appended.append(other)
        assert string.duration == appended.duration
        assert transcript(string) == transcript(appended)
        assert np.array_equal(string.load_audio(), appended.load_audio())
        parts = [by_id[name].load_audio() for name in members(string)]
        assert np.array_equal(string.load_audio(), np.concatenate(parts, axis=1))


def test_an_epoch_is_joined_in_little_time(recordings: CutSet) -> None:
    """2,400 recordings are joined a hundred times in a training run of minutes."""
    import time

    many = CutSet.from_cuts(
        cut.with_id(f"{cut.id}-{copy}") for copy in range(52) for cut in recordings
    )
    joined(many)
    began = time.process_time()
    joined(many, epoch=1)
    assert time.process_time() - began < 0.2
