"""The create_dataset stage makes, keeps and remakes data, and leaves nothing half-made."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from espnet3.data import create_dataset
from espnet3.data.reference import load_package
from espnet3.utils.errors import ConfigError, DataError, StorageError

RECIPE = """
import shutil
from pathlib import Path
from espnet3.data import Dataset as Base, load_cuts, save_cuts
from espnet3.data.audio import read_audio, write_wav
from espnet3.data.manifests import utterance_cut
from espnet3.data.pinned import PinnedSourceBuilder

class DatasetBuilder(PinnedSourceBuilder):
    source_sha256 = "{sha256}"
    source_variable = "TAKE_SOURCE"
    format_version = {version}
    def fetch(self, folder, *, advice):
        raise __import__("espnet3.utils.errors").utils.errors.DataError("no network; " + advice)
    def place(self, source, folder):
        return [Path(shutil.copyfile(source / "take.wav", folder / "take.wav"))]
    def make_utterances(self, source, folder):
        samples, rate = read_audio(source / "take.wav")
        write_wav(folder / "u.wav", samples, rate)
        {slip}
        cut = utterance_cut("u", text="{text}", speaker="s", audio=Path("utterances/u.wav"),
                            num_samples=len(samples), sample_rate_hz=rate)
        save_cuts([cut], folder / "train.cuts.jsonl.gz")

class Dataset(Base):
    def __init__(self, split, recipe_dir, data_dir):
        self.split, self.data_dir = split, data_dir
    def cuts(self):
        manifest = self.data_dir / "utterances" / (self.split + ".cuts.jsonl.gz")
        return load_cuts(manifest, data_dir=self.data_dir)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    import numpy as np

    from espnet3.data.audio import write_wav

    folder = tmp_path / "given"
    folder.mkdir()
    write_wav(folder / "take.wav", np.arange(1, 8001, dtype=np.int16), 8000)
    return folder


@pytest.fixture(autouse=True)
def _no_source_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAKE_SOURCE", raising=False)


def write_recipe(
    folder: Path, source: Path, *, version: int = 1, text: str = "ONE", slip: str = ""
) -> Path:
    from espnet3.data.archives import content_sha256

    package = folder / "dataset"
    package.mkdir(parents=True)
    sha256 = content_sha256(source, [source / "take.wav"])
    content = RECIPE.format(sha256=sha256, version=version, text=text, slip=slip)
    (package / "__init__.py").write_text(content)
    return folder


def config(recipe: Path, data_dir: Path, **settings: object) -> DictConfig:
    return OmegaConf.create(
        {
            "recipe_dir": str(recipe),
            "data_dir": str(data_dir),
            "dataset": {"train": [{"data_src_args": {"split": "train"}}]},
            "create_dataset": settings,
        }
    )


def test_made_then_kept(hostile_path: Path, source: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    recipe = write_recipe(hostile_path / "recipe", source)
    asked = config(recipe, hostile_path / "data", source=str(source))
    assert create_dataset(asked) == {"train": {"utterances": 1, "minutes": 0.02}}
    assert "Making the utterances anew: no earlier output" in caplog.text
    made = (hostile_path / "data" / "utterances" / "u.wav").stat().st_mtime_ns
    caplog.clear()
    assert create_dataset(asked)["train"]["utterances"] == 1
    assert "Kept: the source" in caplog.text
    assert "Kept: the utterances" in caplog.text
    assert (hostile_path / "data" / "utterances" / "u.wav").stat().st_mtime_ns == made


def test_verified_data_needs_its_source_no_more(tmp_path: Path, source: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe", source)
    create_dataset(config(recipe, tmp_path / "data", source=str(source)))
    shutil.rmtree(source)
    create_dataset(config(recipe, tmp_path / "data"))


def test_a_source_that_changed_is_verified_again(tmp_path: Path, source: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe", source)
    asked = config(recipe, tmp_path / "data", source=str(source))
    create_dataset(asked)
    (source / "take.wav").write_bytes((source / "take.wav").read_bytes() + b"\0\0")
    with pytest.raises(DataError, match="is not the pinned source: the SHA-256"):
        create_dataset(asked)
    # What was verified earlier is still whole, and still serves those who name no source.
    create_dataset(config(recipe, tmp_path / "data"))


def test_source_by_environment_variable(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAKE_SOURCE", str(source))
    create_dataset(config(write_recipe(tmp_path / "recipe", source), tmp_path / "data"))


def test_source_counts_from_the_recipe(tmp_path: Path, source: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe", source)
    create_dataset(config(recipe, tmp_path / "data", source="../given"))


def test_without_source_or_network(tmp_path: Path, source: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe", source)
    with pytest.raises(DataError, match=r"create_dataset\.source .*variable TAKE_SOURCE"):
        create_dataset(config(recipe, tmp_path / "data"))
    assert not (tmp_path / "data" / "source").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"source": "not/there"}, DataError, "no .*not/there, which create_dataset.source names"),
        ({"source": 3}, ConfigError, "create_dataset.source is 3; a path is needed"),
        ({"sorce": "x"}, ConfigError, "unknown key 'sorce'. Did you mean 'source'"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, source: Path, settings: dict[str, object], error: type, message: str
) -> None:
    recipe = write_recipe(tmp_path / "recipe", source)
    with pytest.raises(error, match=message):
        create_dataset(config(recipe, tmp_path / "data", **settings))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("version", "damage"), [(2, None), (1, "remove"), (1, "alter")], ids=str)
def test_redone_when_code_or_output_changed(
    tmp_path: Path, source: Path, version: int, damage: str | None
) -> None:
    create_dataset(
        config(write_recipe(tmp_path / "first", source), tmp_path / "data", source=str(source))
    )
    audio = tmp_path / "data" / "utterances" / "u.wav"
    whole = audio.read_bytes()
    if damage == "remove":
        audio.unlink()
    elif damage == "alter":
        audio.write_bytes(whole[:100])
    else:
        os.utime(audio, ns=(0, audio.stat().st_mtime_ns))  # to be seen anew
    seen = audio.stat().st_ino if audio.exists() else None
    recipe = write_recipe(tmp_path / "second", source, version=version)
    create_dataset(config(recipe, tmp_path / "data"))
    assert audio.read_bytes() == whole
    assert audio.stat().st_ino != seen


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, source: Path) -> None:
    broken = write_recipe(tmp_path / "broken", source, slip="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        create_dataset(config(broken, tmp_path / "data", source=str(source)))
    assert not [path for path in (tmp_path / "data").rglob("*") if path.name == "u.wav"]
    whole = write_recipe(tmp_path / "whole", source)
    assert create_dataset(config(whole, tmp_path / "data"))["train"]["utterances"] == 1


def test_a_failed_rebuild_is_not_taken_for_whole(tmp_path: Path, source: Path) -> None:
    good = write_recipe(tmp_path / "good", source)
    create_dataset(config(good, tmp_path / "data", source=str(source)))
    wordless = write_recipe(tmp_path / "wordless", source, version=2, text="")
    for _ in range(2):
        with pytest.raises(DataError, match="'train' has no transcript for u"):
            create_dataset(config(wordless, tmp_path / "data"))


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path, source: Path) -> None:
    left = tmp_path / "data" / ".source.0123abcd.partial"
    left.mkdir(parents=True)
    (left / "take.wav").write_bytes(b"half")
    recipe = write_recipe(tmp_path / "recipe", source)
    create_dataset(config(recipe, tmp_path / "data", source=str(source)))
    assert not left.exists()


def test_two_processes_make_the_data_once(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = "__import__('time').sleep(0.2); (Path({made!r}) / folder.name).touch()"
    made = tmp_path / "made"
    made.mkdir()
    recipe = write_recipe(tmp_path / "recipe", source, slip=slow.format(made=str(made)))
    builder = load_package(recipe).DatasetBuilder()
    settings = {"recipe_dir": recipe, "data_dir": tmp_path / "data", "source": str(source)}
    builder.prepare_source(**settings)
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(builder.build, **settings) for _ in range(3)]:
            done.result()
    assert len(list(made.iterdir())) == 1
    assert "Waiting for another process" in caplog.text
    assert builder.is_built(**settings)


def test_full_disk(tmp_path: Path, source: Path, small_disk: Path) -> None:
    recipe = write_recipe(
        tmp_path / "recipe", source, slip="(folder / 'large').write_bytes(bytes(1 << 20))"
    )
    with pytest.raises(StorageError, match="disk is full"):
        create_dataset(config(recipe, small_disk / "data", source=str(source)))
    assert not (small_disk / "data" / "utterances").exists()
    assert not (small_disk / "data" / ".utterances.done.json").exists()


def test_a_config_without_data(tmp_path: Path, source: Path) -> None:
    asked = config(write_recipe(tmp_path / "recipe", source), tmp_path / "data")
    asked.dataset = {}
    with pytest.raises(ConfigError, match="names no data"):
        create_dataset(asked)


def test_two_entries_of_one_name(tmp_path: Path, source: Path) -> None:
    asked = config(write_recipe(tmp_path / "recipe", source), tmp_path / "data", source=str(source))
    entry = {"name": "same", "data_src_args": {"split": "train"}}
    asked.dataset = {"test": [entry, entry]}
    with pytest.raises(ConfigError, match="two entries 'same'"):
        create_dataset(asked)
