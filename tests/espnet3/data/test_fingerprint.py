"""A fingerprint changes with what cuts say and hold, and with nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lhotse import CutSet, MonoCut

from espnet3.data import fingerprint as module
from espnet3.data import load_cuts, save_cuts
from espnet3.data.fingerprint import fingerprint

MakeCut = Callable[..., MonoCut]


def audio_of(cut: MonoCut) -> Path:
    return Path(cut.recording.sources[0].source)


def alter(path: Path) -> None:
    """Change samples, and nothing that can be seen without reading them."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-100:] = bytes(100)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_other_samples_of_the_same_length_and_time_are_seen(make_cut: MakeCut) -> None:
    cuts = CutSet.from_cuts([make_cut("a"), make_cut("b")])
    before = fingerprint(cuts)
    assert fingerprint(cuts) == before
    alter(audio_of(cuts["b"]))
    assert fingerprint(cuts) != before


def test_audio_of_joined_cuts_is_seen(make_cut: MakeCut) -> None:
    first, second = make_cut("a"), make_cut("b")
    joined = [first.append(second, preserve_id="left")]
    before = fingerprint(joined)
    alter(audio_of(second))
    assert fingerprint(joined) != before


def test_another_transcript_and_a_missing_file_are_seen(make_cut: MakeCut) -> None:
    cut = make_cut("a")
    before = fingerprint([cut])
    assert fingerprint([make_cut("a", text="ONE THREE")]) != before
    audio_of(cut).unlink()
    assert fingerprint([cut]) != before


def test_data_that_is_copied_elsewhere_is_the_same(make_cut: MakeCut, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    cut = make_cut("a")
    here.mkdir()
    audio_of(cut).rename(here / "a.wav")
    cut.recording.sources[0].source = "a.wav"
    save_cuts([cut], here / "train.cuts.jsonl.gz")
    shutil.copytree(here, there, copy_function=shutil.copyfile)
    first, second = (
        load_cuts(folder / "train.cuts.jsonl.gz", data_dir=folder) for folder in (here, there)
    )
    assert fingerprint(first) == fingerprint(second)


def test_much_audio_is_known_by_sizes_and_times(
    make_cut: MakeCut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_AT_MOST_BYTES", 1000)
    cut = make_cut("a")
    before = fingerprint([cut])
    alter(audio_of(cut))
    assert fingerprint([cut]) == before
    os.utime(audio_of(cut))
    assert fingerprint([cut]) != before
