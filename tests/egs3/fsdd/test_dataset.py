"""FSDD: slips in configs, sources that are not whole, and the true recordings."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from egs3.fsdd.asr.dataset import Dataset
from egs3.fsdd.asr.dataset import builder as builder_module
from egs3.fsdd.asr.dataset.builder import DatasetBuilder
from espnet3.data import check_cuts, transcript
from espnet3.utils.errors import ConfigError, DataError
from tests.conftest import lacks

RECIPE_DIR = Path(builder_module.__file__).parents[1]


def settings(data_dir: Path, source: Path | None = None) -> dict[str, Any]:
    return {
        "recipe_dir": RECIPE_DIR,
        "data_dir": data_dir,
        "source": None if source is None else str(source),
    }


@pytest.fixture(autouse=True)
def _no_source_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSDD_ARCHIVE", raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tran"}, r"no split 'tran'\. Did you mean 'train'"),
        ({"split": ["train"]}, r"no split '\['train'\]'"),
        ({"split": "test", "join": {}}, "'join' is for the training split; 'test'"),
        ({"split": "train", "join": {"max_digit": 5}}, r"'max_digit'\. Did you mean 'max_digits'"),
        ({"split": "train", "join": {"min_digits": 5, "max_digits": 2}}, "1 <= min_digits"),
        ({"split": "train", "join": {"max_digits": "many"}}, "1 <= min_digits"),
        ({"split": "train", "join": True}, "join is True; a mapping"),
        ({"split": "train", "join": {"curriculum": 30}}, "a fraction of the run"),
    ],
)
def test_slips_in_a_reference(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Dataset(**arguments, recipe_dir=RECIPE_DIR, data_dir=tmp_path)


def test_without_data_it_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--stages create_dataset"):
        Dataset("train", recipe_dir=RECIPE_DIR, data_dir=tmp_path).cuts()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DatasetBuilder, "url", "http://127.0.0.1:9/fsdd.tar.gz")
    with pytest.raises(DataError, match=r"create_dataset\.source .* variable FSDD_ARCHIVE"):
        DatasetBuilder().prepare_source(**settings(tmp_path / "data"))
    assert not (tmp_path / "data" / "source").exists()


def test_folder_that_is_not_fsdd(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="holds no folder 'recordings'"):
        DatasetBuilder().prepare_source(**settings(tmp_path / "data", tmp_path / "other"))


def write_archive(path: Path, names: list[str]) -> Path:
    """Pack recordings made here as upstream's archive is: one folder down."""
    recordings = path.parent / "free-spoken-digit-dataset-0123" / "recordings"
    recordings.mkdir(parents=True)
    for name in names:
        soundfile.write(recordings / name, np.arange(1, 81, dtype=np.int16), 8000)
    with tarfile.open(path, "w:xz") as archive:
        archive.add(recordings.parent, arcname=recordings.parent.name)
    return path


def test_archive_that_is_incomplete(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "fsdd.tar.xz", ["0_george_0.wav", "0_george_1.wav"])
    with pytest.raises(DataError, match="holds 2 recordings, 3,000 are expected"):
        DatasetBuilder().prepare_source(**settings(tmp_path / "data", archive))
    assert not (tmp_path / "data" / "source").exists()


def test_archive_of_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "_NUM_RECORDINGS", 1)
    archive = write_archive(tmp_path / "fsdd.tar.xz", ["0_george_0.wav"])
    with pytest.raises(DataError, match=r"fsdd\.tar\.xz is not the pinned source: the SHA-256"):
        DatasetBuilder().prepare_source(**settings(tmp_path / "data", archive))
    assert not (tmp_path / "data" / "source").exists()


@pytest.mark.parametrize("name", ["0_george.wav", "x_george_1.wav"])
def test_recording_with_a_name_that_says_nothing(tmp_path: Path, name: str) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    soundfile.write(recordings / name, np.ones(80, dtype=np.int16), 8000)
    with pytest.raises(DataError, match=f"{name} is not named <digit>_<speaker>_<index>"):
        DatasetBuilder().make_utterances(tmp_path, tmp_path / "made")


def test_recording_of_another_rate(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    audio = tmp_path / "recordings" / "0_george_0.wav"
    soundfile.write(audio, np.ones(80, dtype=np.int16), 16000)
    with pytest.raises(DataError, match=r"0_george_0\.wav is sampled at 16000 Hz, 8000"):
        DatasetBuilder().make_utterances(tmp_path, tmp_path / "made")


@pytest.mark.parametrize("config", ["training", "training_unseen"])
def test_dry_run_from_any_folder_creates_nothing(hostile_path: Path, config: str) -> None:
    command = [sys.executable, str(RECIPE_DIR / "run.py"), "--stages", "create_dataset", "infer"]
    inference = config.replace("training", "inference")
    command += ["--dry_run", "--training_config", f"conf/{config}.yaml"]
    done = subprocess.run(
        [*command, "--inference_config", f"conf/{inference}.yaml"],
        cwd=hostile_path,
        env={"PYTHONPATH": str(RECIPE_DIR.parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "would run stage: infer" in done.stdout + done.stderr
    assert not list(hostile_path.iterdir())


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder built from the true recordings, where they are at hand."""
    shared = Path(os.environ.get("SHARED_DATA", RECIPE_DIR.parents[3] / "shared"))
    archive = shared / "data" / "fsdd.tar.xz"
    if not archive.is_file():
        lacks(f"no {archive}; set SHARED_DATA")
    data_dir = tmp_path_factory.mktemp("fsdd 'data'")
    builder = DatasetBuilder()
    builder.prepare_source(**settings(data_dir, archive))
    builder.build(**settings(data_dir, archive))
    assert builder.is_source_prepared(**settings(data_dir, archive))
    assert builder.is_built(**settings(data_dir, archive))
    return data_dir


def split_of(data_dir: Path, split: str, **arguments: Any) -> Dataset:
    return Dataset(split, recipe_dir=RECIPE_DIR, data_dir=data_dir, **arguments)


def speakers(dataset: Dataset) -> set[str]:
    return {cut.supervisions[0].speaker for cut in dataset.cuts()}


@pytest.mark.slow
def test_ids_words_and_samples_are_the_baselines(fsdd: Path, tmp_path: Path) -> None:
    """Held to a digest always, and to the output of the baseline's script where that is."""
    digest = hashlib.sha256()
    ours: dict[str, dict[str, tuple[str, np.ndarray]]] = {}
    for split in ("train", "valid", "test"):
        cuts = list(split_of(fsdd, split).cuts())
        ours[split] = {}
        for cut in cuts:
            samples, rate_hz = soundfile.read(cut.recording.sources[0].source, dtype="int16")
            assert rate_hz == 8000
            ours[split][cut.id] = (transcript(cut), samples)
            digest.update(f"{cut.id}\t{transcript(cut)}\t".encode() + samples.tobytes())
    assert {split: len(rows) for split, rows in ours.items()} == {
        "train": 480,
        "valid": 60,
        "test": 60,
    }
    assert digest.hexdigest() == "20df43e4c53463b552b58b70c0a6bc92b987d273bf03e92513bbcd815f2976c7"

    shared = Path(os.environ.get("SHARED_DATA", RECIPE_DIR.parents[3] / "shared"))
    script = shared / "baseline" / "make_fsdd_strings.py"
    if not script.is_file():
        return
    command = [sys.executable, str(script), str(fsdd / "source"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for split, rows in ours.items():
        lines = (tmp_path / "manifest" / f"{split}.tsv").read_text().splitlines()
        theirs = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
        assert list(theirs) == list(rows)
        for utterance_id, (audio, text) in theirs.items():
            assert rows[utterance_id][0] == text
            assert np.array_equal(rows[utterance_id][1], soundfile.read(audio, dtype="int16")[0])


@pytest.mark.slow
def test_epochs_join_all_training_recordings(fsdd: Path) -> None:
    dataset = split_of(fsdd, "train", join={"max_digits": 7})
    cuts = dataset.epoch_cuts(0, 0)
    check_cuts(cuts, name="epoch 0", sample_rate_hz=8000)
    used = Counter(segment.id for cut in cuts for segment in cut.supervisions)
    assert set(used.values()) == {1}
    assert len(used) == 2400
    assert {int(name.split("_")[2]) for name in used} == set(range(10, 50))
    assert len(list(split_of(fsdd, "train").epoch_cuts(0, 0))) == 480  # fixed without `join`


@pytest.mark.slow
def test_the_curriculum_grows_from_single_digits(fsdd: Path) -> None:
    dataset = split_of(fsdd, "train", join={"max_digits": 5, "curriculum": 0.5})

    def longest(progress: float) -> int:
        return max(len(cut.supervisions) for cut in dataset.epoch_cuts(0, 0, progress))

    assert [longest(progress) for progress in (0.0, 0.1, 0.2, 0.3, 0.4, 0.49)] == [
        1,
        2,
        3,
        4,
        5,
        5,
    ]
    assert longest(0.5) == longest(0.9) == 5


@pytest.mark.slow
def test_a_speaker_is_wholly_left_out(fsdd: Path) -> None:
    left_out = {"unseen_speaker": "theo"}
    train = split_of(fsdd, "train", join={}, **left_out)
    test = split_of(fsdd, "test", **left_out)
    for dataset in (train, split_of(fsdd, "valid", **left_out)):
        assert len(speakers(dataset)) == 5
        assert "theo" not in speakers(dataset)
    assert all(
        segment.speaker != "theo" for cut in train.epoch_cuts(1, 0) for segment in cut.supervisions
    )
    assert speakers(test) == {"theo"}
    cuts = list(test.cuts())
    assert len(cuts) == 100  # 500 recordings in strings of five
    assert sum(len(transcript(cut).split()) for cut in cuts) == 500
    with pytest.raises(ConfigError, match=r"no speaker 'teo' .* Did you mean 'theo'"):
        split_of(fsdd, "test", unseen_speaker="teo").cuts()
