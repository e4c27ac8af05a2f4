"""The data of the documents' example recipe: kept, made anew, and refused, as they promise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from espnet3.data import create_dataset, load_dataset
from espnet3.data.audio import read_audio, write_wav
from espnet3.utils.config_utils import load_and_merge_config
from espnet3.utils.errors import ConfigError, DataError

from .test_documents import record, write_files

UTTERANCE = "bert-000"  # of the training split

Create = Callable[..., dict[str, Any]]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    write_files("adding-a-recipe.md", tmp_path)
    return record(tmp_path)


@pytest.fixture
def create(recordings: Path, caplog: pytest.LogCaptureFixture) -> Create:
    """Return a function that runs create_dataset, its log being that of this run alone."""
    recipe = recordings.parent
    caplog.set_level(logging.INFO)

    def run(**settings: str) -> dict[str, Any]:
        config = load_and_merge_config(
            recipe / "conf" / "training.yaml", "training.yaml", "egs3.TEMPLATE.asr", resolve=False
        )
        assert config is not None
        config.recipe_dir = str(recipe)
        config.create_dataset.update(settings)
        OmegaConf.resolve(config)
        caplog.clear()
        return create_dataset(config)

    return run


def num_samples(recordings: Path) -> int:
    recipe = recordings.parent
    reference = {"data_src_args": {"split": "train"}}
    dataset = load_dataset(reference, recipe_dir=recipe, data_dir=recipe / "data")
    return int(dataset.cuts()[UTTERANCE].num_samples)


def test_unchanged_data_is_kept(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    first = create()
    assert first["train"]["utterances"] == 12
    assert "Making the manifests anew: no earlier output" in caplog.text
    assert create() == first
    assert "Kept: the manifests" in caplog.text


def test_a_shorter_recording_is_taken_over(
    create: Create, recordings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create()
    before = num_samples(recordings)
    samples, rate_hz = read_audio(recordings / f"{UTTERANCE}.wav")
    write_wav(recordings / f"{UTTERANCE}.wav", samples[: before // 3], rate_hz)
    create()
    assert "Making the manifests anew: content: " in caplog.text
    assert num_samples(recordings) == before // 3


def test_another_source_is_taken_over(
    create: Create, recordings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create()
    other = recordings.rename(recordings.with_name("other"))
    create(source=str(other))
    assert "source: " in caplog.text
    assert "Kept" not in caplog.text


def test_a_recording_that_is_gone_leads_to_two_ways_out(create: Create, recordings: Path) -> None:
    create()
    (recordings / f"{UTTERANCE}.wav").unlink()
    with pytest.raises(DataError, match=rf"{UTTERANCE}\.wav.*take the utterance out of the trans"):
        create()
    table = recordings / "transcripts.tsv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith(UTTERANCE)))
    assert create()["train"]["utterances"] == 11


def test_mistakes_of_a_person_are_one_message(create: Create, recordings: Path) -> None:
    with pytest.raises(DataError, match=r"no transcripts\.tsv in create_dataset\.source: /nowhere"):
        create(source="/nowhere")
    table = recordings / "transcripts.tsv"
    table.write_text(table.read_text().replace("\t", " "))
    with pytest.raises(DataError, match=r"transcripts\.tsv, line 1: four columns"):
        create()
    with pytest.raises(ConfigError, match="unknown key 'sorce'"):
        create(sorce="x")
