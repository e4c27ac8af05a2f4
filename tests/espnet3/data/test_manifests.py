"""Manifests are written whole and can be moved with their data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from espnet3.data import load_cuts, save_cuts
from espnet3.data.audio import write_wav
from espnet3.data.manifests import utterance_cut
from espnet3.utils.errors import DataError


def write_split(data_dir: Path) -> Path:
    (data_dir / "wav").mkdir(parents=True)
    cuts = []
    for name in ("b", "a"):
        write_wav(data_dir / "wav" / f"{name}.wav", np.arange(1, 81, dtype=np.int16), 8000)
        audio = Path("wav") / f"{name}.wav"
        cuts.append(
            utterance_cut(
                name, text="ONE", speaker="s", audio=audio, num_samples=80, sample_rate_hz=8000
            )
        )
    manifest = data_dir / "train.cuts.jsonl.gz"
    save_cuts(cuts, manifest)
    return manifest


def test_round_trip_is_sorted_and_reads_audio(hostile_path: Path) -> None:
    manifest = write_split(hostile_path / "data")
    cuts = list(load_cuts(manifest, data_dir=hostile_path / "data"))
    assert [cut.id for cut in cuts] == ["a", "b"]
    assert (cuts[0].load_audio() * 32768).astype(int)[0, :3].tolist() == [1, 2, 3]


def test_data_may_be_moved(tmp_path: Path) -> None:
    write_split(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    data_dir = tmp_path / "there"
    cuts = load_cuts(data_dir / "train.cuts.jsonl.gz", data_dir=data_dir)
    assert all(cut.load_audio().shape == (1, 80) for cut in cuts)


def test_missing_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No manifest .*--stages create_dataset"):
        load_cuts(tmp_path / "train.cuts.jsonl.gz", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "garbage"])
def test_damaged_manifest_is_named(tmp_path: Path, damage: str) -> None:
    manifest = write_split(tmp_path)
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[: len(whole) // 2] if damage == "truncate" else b"no gzip")
    with pytest.raises(DataError, match=r"train\.cuts\.jsonl\.gz cannot be read"):
        load_cuts(manifest, data_dir=tmp_path)
