"""Mini AN4: from ESPnet's wheel, its archive or a folder to checked utterances."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from egs3.mini_an4.asr.dataset import builder as builder_module
from egs3.mini_an4.asr.dataset import source as source_module
from egs3.mini_an4.asr.dataset.builder import DatasetBuilder
from espnet3.data import DatasetReference, load_dataset, transcript
from espnet3.data.archives import content_sha256
from espnet3.utils.errors import ConfigError, DataError
from espnet3.utils.files import sha256_of

RECIPE_DIR = Path(builder_module.__file__).parents[1]
TRANSCRIPTS = {
    "train": "<s> YES </s> (an1-fash-b)\n\n<s> GO AHEAD </s> (an2-fash-b)\n",
    "test": "MARCH THIRD (an3-mmxg-b)\n",
}


@pytest.fixture
def an4(tmp_path: Path) -> Path:
    """Return a folder laid out as the archive is, with utterances made here."""
    folder = tmp_path / "downloads" / "an4"
    (folder / "etc").mkdir(parents=True)
    for split, text in TRANSCRIPTS.items():
        (folder / "etc" / f"an4_{split}.transcription").write_text(text)
    for seed, place in enumerate(
        ("an4_clstk/fash/an1-fash-b", "an4_clstk/fash/an2-fash-b", "an4test_clstk/mmxg/an3-mmxg-b")
    ):
        path = folder / "wav" / f"{place}.sph"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(seed).integers(-999, 999, 1600).astype(np.int16)
        soundfile.write(path, samples, 16000, format="NIST", subtype="PCM_16")
    return folder


@pytest.fixture
def archive(an4: Path, tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "downloads.tar.gz", "w:gz") as stream:
        stream.add(an4.parent, arcname="downloads")
    return tmp_path / "downloads.tar.gz"


@pytest.fixture
def wheel(archive: Path, tmp_path: Path) -> Path:
    path = tmp_path / "espnet-202611-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as members:
        members.write(archive, source_module.ARCHIVE_IN_WHEEL)
    return path


@pytest.fixture(autouse=True)
def _pins(an4: Path, archive: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin what the fixtures made in place of what is published."""
    files = [path for path in an4.rglob("*") if path.is_file()]
    monkeypatch.setattr(DatasetBuilder, "source_sha256", content_sha256(an4.parent, files))
    monkeypatch.setattr(builder_module, "ARCHIVE_SHA256", sha256_of(archive))
    monkeypatch.setattr(source_module, "WHEEL_SHA256", sha256_of(wheel))
    monkeypatch.delenv("MINI_AN4_ARCHIVE", raising=False)


def build(data_dir: Path, source: Path | None) -> None:
    settings = {
        "recipe_dir": RECIPE_DIR,
        "data_dir": data_dir,
        "source": None if source is None else str(source),
    }
    builder = DatasetBuilder()
    if not builder.is_source_prepared(**settings):
        builder.prepare_source(**settings)
    if not builder.is_built(**settings):
        builder.build(**settings)


def texts(data_dir: Path, split: str) -> dict[str, str]:
    reference = DatasetReference(data_src_args={"split": split})
    dataset = load_dataset(reference, recipe_dir=RECIPE_DIR, data_dir=data_dir)
    return {cut.id: transcript(cut) for cut in dataset.cuts()}


@pytest.mark.parametrize("kind", ["folder", "folder of archive", "archive", "wheel"])
def test_every_kind_of_source(
    hostile_path: Path, an4: Path, archive: Path, wheel: Path, kind: str
) -> None:
    sources = {
        "folder": an4,
        "folder of archive": an4.parent,
        "archive": archive,
        "wheel": wheel,
    }
    data_dir = hostile_path / "data"
    build(data_dir, sources[kind])
    assert texts(data_dir, "train") == {"an1-fash-b": "YES", "an2-fash-b": "GO AHEAD"}
    assert texts(data_dir, "valid") == texts(data_dir, "train")
    assert texts(data_dir, "test") == {"an3-mmxg-b": "MARCH THIRD"}


def test_sphere_is_rewritten_sample_by_sample(tmp_path: Path, an4: Path) -> None:
    build(tmp_path / "data", an4)
    sphere = next(an4.rglob("an3-mmxg-b.sph"))
    wav = tmp_path / "data" / "utterances" / "wav" / "test" / "an3-mmxg-b.wav"
    written, rate_hz = soundfile.read(wav, dtype="int16")
    assert rate_hz == 16000
    assert np.array_equal(written, soundfile.read(sphere, dtype="int16")[0])
    assert soundfile.info(wav).subtype == "PCM_16"


def pretend_pip(monkeypatch: pytest.MonkeyPatch, wheel: Path | None, said: str = "") -> list[str]:
    """Let the recipe's pip download leave ``wheel``, or fail; return the command it was given."""
    command: list[str] = []

    def run(asked: list[str], **_: object) -> SimpleNamespace:
        command.extend(asked)
        if wheel is not None:
            shutil.copy(wheel, asked[asked.index("--dest") + 1])
        return SimpleNamespace(returncode=wheel is None, stdout="", stderr=said)

    monkeypatch.setattr(source_module.subprocess, "run", run)
    return command


def test_fetched_with_pip(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = pretend_pip(monkeypatch, wheel)
    build(tmp_path / "data", None)
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    for option in ("--no-deps", "--only-binary=:all:", "espnet==202611"):
        assert option in command
    assert command[command.index("--python-version") + 1] == "3.12"
    left = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert [name for name in left if not name.startswith(".")] == ["source", "utterances"]
    assert not [name for name in left if name.startswith(".fetch")]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=1)) after connection broken\nERROR: No matching wheel",
            "the package registry cannot be reached",
        ),
        ("ERROR: No matching distribution found", "No matching distribution found"),
        ("", "it ended with status"),
    ],
)
def test_pip_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, reason: str) -> None:
    pretend_pip(monkeypatch, None, said)
    with pytest.raises(DataError, match=rf"\({reason}.*\).*create_dataset\.source"):
        build(tmp_path / "data", None)
    assert not (tmp_path / "data" / "source").exists()


def test_interpreter_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"has no pip .*ensurepip"):
        build(tmp_path / "data", None)


def test_fetched_wheel_with_another_checksum(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "WHEEL_SHA256", "0" * 64)
    pretend_pip(monkeypatch, wheel)
    with pytest.raises(DataError, match=r"espnet-202611.* is not the pinned file.*0000 is expect"):
        build(tmp_path / "data", None)


def test_archive_with_another_checksum(tmp_path: Path, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"downloads\.tar\.gz is not the pinned file"):
        build(tmp_path / "data", archive)


def test_wheel_that_is_none(tmp_path: Path, wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:500])
    with pytest.raises(DataError, match="is no wheel, or is truncated"):
        build(tmp_path / "data", wheel)


def test_wheel_of_something_else(tmp_path: Path) -> None:
    other = tmp_path / "other-1-py3-none-any.whl"
    with zipfile.ZipFile(other, "w") as members:
        members.writestr("other.py", "")
    with pytest.raises(DataError, match=r"holds no egs3/mini_an4/.*espnet==202611 does"):
        build(tmp_path / "data", other)


def test_folder_without_an4(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no AN4 data"):
        build(tmp_path / "data", tmp_path / "empty")


def make_from(an4: Path, tmp_path: Path) -> None:
    """Build from a folder as it is, past the pin, to see what the builder makes of it."""
    source, folder = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    shutil.copytree(an4, source / "an4")
    folder.mkdir()
    DatasetBuilder().make_utterances(source, folder)


def test_transcript_without_audio(tmp_path: Path, an4: Path) -> None:
    next(an4.rglob("an2-fash-b.sph")).unlink()
    with pytest.raises(DataError, match="train: no audio for the transcript of an2-fash-b"):
        make_from(an4, tmp_path)


def test_audio_without_transcript(
    tmp_path: Path, an4: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (an4 / "etc" / "an4_train.transcription").write_text("<s> YES </s> (an1-fash-b)\n")
    with caplog.at_level(logging.WARNING):
        make_from(an4, tmp_path)
    assert "train: left out for want of a transcript: an2-fash-b" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<s> YES </s> (an1-fash-b)", "holds an1-fash-b twice"),
        ("<s> YES </s>", "line 4: 'WORDS \\(id\\)' expected"),
        ("<s> </s> (an9-fash-b)", "no words for an9-fash-b"),
    ],
)
def test_broken_transcripts(tmp_path: Path, an4: Path, line: str, message: str) -> None:
    with (an4 / "etc" / "an4_train.transcription").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError, match=message):
        make_from(an4, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "rate"])
def test_broken_audio_is_named(tmp_path: Path, an4: Path, damage: str) -> None:
    path = next(an4.rglob("an2-fash-b.sph"))
    if damage == "rate":
        soundfile.write(path, np.ones(800, np.int16), 8000, format="NIST", subtype="PCM_16")
    else:
        path.write_bytes(path.read_bytes()[:1500] if damage == "truncated" else b"\xff" * 2000)
    with pytest.raises(DataError, match=r"an2-fash-b\.sph"):
        make_from(an4, tmp_path)


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no split 'tset'\. Did you mean 'test'"):
        texts(tmp_path, "tset")
    with pytest.raises(ConfigError, match=r"no split '\['test'\]'"):
        texts(tmp_path, ["test"])  # type: ignore[arg-type]  # as a config may have it


@pytest.mark.slow
def test_the_published_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches 4.5 MB from the package registry and holds it to the pins of the recipe."""
    monkeypatch.undo()  # the true pins
    monkeypatch.delenv("MINI_AN4_ARCHIVE", raising=False)
    build(tmp_path / "data", None)
    assert texts(tmp_path / "data", "train") == {
        "an152-mwhw-b": "START",
        "an251-fash-b": "YES",
        "an253-fash-b": "GO",
        "cen8-fbbh-b": "MARCH THIRD NINETEEN TWENTY EIGHT",
        "cen8-mwhw-b": "ELEVEN SEVENTEEN FIFTY ONE",
    }
    assert texts(tmp_path / "data", "test") == {
        "cen8-fcaw-b": "ELEVEN TWENTY SEVEN FIFTY SEVEN",
        "cen8-mmxg-b": "OCTOBER TWENTY FOUR NINETEEN SEVENTY",
    }


def test_runs_from_any_folder(hostile_path: Path) -> None:
    command = [sys.executable, str(RECIPE_DIR / "run.py"), "--stages", "create_dataset"]
    done = subprocess.run(
        [*command, "--dry_run", "--training_config", "conf/training.yaml"],
        cwd=hostile_path,
        env={"PYTHONPATH": str(RECIPE_DIR.parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "would run stage: create_dataset" in done.stdout + done.stderr
    assert not list(hostile_path.iterdir())
