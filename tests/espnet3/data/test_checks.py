"""What is wrong with cuts is found and named, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut

from espnet3.data import check_cuts, transcript
from espnet3.data.audio import read_audio
from espnet3.utils.errors import DataError

MakeCut = Callable[..., MonoCut]


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-3000, 3000, num_samples).astype(np.int16)


def audio_of(cut: MonoCut) -> Path:
    return Path(cut.recording.sources[0].source)


@pytest.mark.parametrize("audio", ["none", "header", "samples"])
def test_sound_cuts_pass(make_cut: MakeCut, audio: str) -> None:
    cuts = CutSet.from_cuts([make_cut("a"), make_cut("b")])
    check_cuts(cuts, name="train", audio=audio, sample_rate_hz=8000)


def test_empty_split() -> None:
    with pytest.raises(DataError, match=r"split 'valid' is empty.*data_src_args"):
        check_cuts(CutSet.from_cuts([]), name="valid")


def test_duplicated_ids_are_named(make_cut: MakeCut) -> None:
    cuts = CutSet.from_cuts([make_cut("a"), make_cut("b"), make_cut("a")])
    with pytest.raises(DataError, match="'train' holds a more than once"):
        check_cuts(cuts, name="train")


def test_empty_transcript_is_named(make_cut: MakeCut) -> None:
    cuts = CutSet.from_cuts([make_cut("a"), make_cut("b", text="  ")])
    with pytest.raises(DataError, match="no transcript for b"):
        check_cuts(cuts, name="train")


def test_missing_audio_is_named(make_cut: MakeCut) -> None:
    cut = make_cut("a")
    audio_of(cut).unlink()
    with pytest.raises(DataError, match=r"'train', a: There is no audio file .*a\.wav.*create_d"):
        check_cuts(CutSet.from_cuts([cut]), name="train")


def test_corrupt_audio_is_named(make_cut: MakeCut) -> None:
    cut = make_cut("a")
    audio_of(cut).write_bytes(b"this is no audio" * 100)
    with pytest.raises(DataError, match=r"a\.wav cannot be read as audio .*Put a whole copy"):
        check_cuts(CutSet.from_cuts([cut]), name="train")


@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "NIST", "AU"])
def test_truncated_file_is_refused(tmp_path: Path, audio_format: str) -> None:
    path = tmp_path / f"a.{audio_format.lower()}"
    soundfile.write(path, noise(8000), 8000, format=audio_format, subtype="PCM_16")
    assert len(read_audio(path)[0]) == 8000
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=r"is truncated: \d+ of 8000|cannot be read as audio"):
        read_audio(path)


def test_a_length_that_was_never_filled_in_is_no_truncation(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, noise(800), 8000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert len(read_audio(path)[0]) == 800


@pytest.mark.parametrize("kept_bytes", [0, 20, 44, 700])
def test_truncated_audio_is_found_by_its_header_alone(make_cut: MakeCut, kept_bytes: int) -> None:
    cut = make_cut("a")
    audio_of(cut).write_bytes(audio_of(cut).read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match=r"a\.wav"):
        check_cuts(CutSet.from_cuts([cut]), name="train", audio="header")


def test_rates_that_differ(make_cut: MakeCut) -> None:
    cuts = CutSet.from_cuts([make_cut("a"), make_cut("b", rate_hz=16000)])
    with pytest.raises(DataError, match="b is sampled at 16000 Hz, 8000 Hz is needed"):
        check_cuts(cuts, name="train")


def test_rate_that_the_recipe_does_not_want(make_cut: MakeCut) -> None:
    with pytest.raises(DataError, match="a is sampled at 8000 Hz, 16000 Hz is needed"):
        check_cuts(CutSet.from_cuts([make_cut("a")]), name="train", sample_rate_hz=16000)


def test_file_of_another_rate_than_its_manifest_says(make_cut: MakeCut) -> None:
    cut = make_cut("a")
    make_cut("a", rate_hz=16000)  # writes over the file
    with pytest.raises(DataError, match="sampled at 16000 Hz, its manifest says 8000 Hz"):
        check_cuts(CutSet.from_cuts([cut]), name="train")


def test_nan_and_silence_are_found_among_samples(make_cut: MakeCut) -> None:
    broken = np.full(800, np.nan)
    with pytest.raises(DataError, match="NaN"):
        check_cuts(CutSet.from_cuts([make_cut("a", samples=broken)]), name="t", audio="samples")
    silent = np.zeros(800, dtype=np.int16)
    with pytest.raises(DataError, match="nothing but silence"):
        check_cuts(CutSet.from_cuts([make_cut("b", samples=silent)]), name="t", audio="samples")


def test_two_channels_are_refused(make_cut: MakeCut) -> None:
    cut = make_cut("a", samples=np.ones((800, 2), dtype=np.int16))
    with pytest.raises(DataError, match="has 2 channels"):
        read_audio(audio_of(cut))


def test_floating_samples_become_int16(make_cut: MakeCut) -> None:
    cut = make_cut("a", samples=np.array([0.5, -1.0, 1.0, 0.0]))
    samples, rate_hz = read_audio(audio_of(cut))
    assert samples.tolist() == [16384, -32768, 32767, 0]
    assert rate_hz == 8000


def test_joined_cuts_are_checked_track_by_track(make_cut: MakeCut) -> None:
    first, second = make_cut("a", text="ONE"), make_cut("b", text="TWO")
    joined = first.append(second)
    assert transcript(joined) == "ONE TWO"
    check_cuts(CutSet.from_cuts([joined]), name="train")
    audio_of(second).unlink()
    with pytest.raises(DataError, match=r"b\.wav"):
        check_cuts(CutSet.from_cuts([joined]), name="train")
