"""Converted files: made once, whole, and held against what is pinned."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images import convert
from launcher.images.cache import Converted, make_once, read_sidecar, sidecar_path
from launcher.images.files import sha256_of
from launcher.images.pin import ImagePin
from launcher.images.unpack import Tools
from launcher.images.verify import NamedRuntime, image_argument, prepare_image
from tests.launcher.images.conftest import DIGEST, IMAGE_ID, OTHER_DIGEST, REPOSITORY

PIN = ImagePin("cpu", REPOSITORY, DIGEST, IMAGE_ID)
APPTAINER = NamedRuntime("apptainer", ImageFormat.SIF)
ENROOT = NamedRuntime("enroot", ImageFormat.SQSH)
BYTES = b"hsqs" * 1000


def fake_conversion(pin: ImagePin, target: Path, tools: Tools) -> Converted:
    target.write_bytes(BYTES)
    return Converted(DIGEST, pin.asked, "apptainer 1.4", {"PATH": "/opt/venv/bin"})


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert without Apptainer."""
    monkeypatch.setattr(convert, "convert_to_sif", fake_conversion)
    monkeypatch.setattr(convert, "convert_to_sqsh", fake_conversion)


@pytest.mark.usefixtures("converter")
def test_a_file_is_made_with_its_sidecar(hostile_path: Path) -> None:
    cache = hostile_path / "cache"
    found = prepare_image(PIN, APPTAINER, cache)
    path = Path(found.argument)
    assert found.argument == image_argument(PIN, ImageFormat.SIF, cache)
    assert (found.asked, found.verified, found.path) == (DIGEST, DIGEST, path)
    assert found.file_sha256 == sha256_of(path)
    assert found.environment == {}  # Apptainer reads them itself
    assert cache.stat().st_mode & 0o777 == 0o700
    record = json.loads(sidecar_path(path).read_text())
    made = record.pop("made")
    assert made.endswith("+00:00")
    assert record == {
        "schema": 1,
        "source": DIGEST,
        "reference": f"{REPOSITORY}@{DIGEST}",
        "tool": "apptainer 1.4",
        "environment": {"PATH": "/opt/venv/bin"},
        "sha256": found.file_sha256,
        "size_bytes": len(BYTES),
    }
    files = {each.name for each in cache.iterdir()}
    assert files == {path.name, f"{path.name}.json", f".{path.name}.lock"}


@pytest.mark.usefixtures("converter")
def test_enroot_is_told_the_images_variables(tmp_path: Path) -> None:
    found = prepare_image(PIN, ENROOT, tmp_path / "cache")
    assert found.environment == {"PATH": "/opt/venv/bin"}
    assert found.argument.endswith(".sqsh")


@pytest.mark.usefixtures("converter")
def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_image(PIN, APPTAINER, tmp_path / "cache")
    monkeypatch.setattr(convert, "convert_to_sif", None)
    assert prepare_image(PIN, APPTAINER, tmp_path / "cache") == first
    assert prepare_image(PIN, APPTAINER, tmp_path / "cache", offline=True) == first


def test_offline_nothing_is_converted(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        prepare_image(PIN, APPTAINER, tmp_path / "cache", offline=True)
    assert "python -m launcher image pull cpu --for apptainer" in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("is_pinned", [False, True])
def test_one_altered_byte_is_refused_with_both_digests(tmp_path: Path, is_pinned: bool) -> None:
    made = prepare_image(PIN, APPTAINER, tmp_path)
    pin = ImagePin("cpu", REPOSITORY, DIGEST, sif_sha256=made.file_sha256) if is_pinned else PIN
    assert prepare_image(pin, APPTAINER, tmp_path).file_sha256 == made.file_sha256
    path = Path(made.argument)
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(ImageError) as caught:
        prepare_image(pin, APPTAINER, tmp_path)
    said = str(caught.value)
    assert f"pinned  {made.file_sha256}" in said
    assert f"found   {sha256_of(path)}" in said
    assert f"rm {path} {path}.json" in said
    assert "python -m launcher image pull cpu --for apptainer" in said


@pytest.mark.usefixtures("converter")
def test_the_right_bytes_of_the_wrong_image_are_refused(tmp_path: Path) -> None:
    made = prepare_image(PIN, APPTAINER, tmp_path)
    path = Path(made.argument)
    record = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps({**record, "source": OTHER_DIGEST}))
    for pin in (PIN, ImagePin("cpu", REPOSITORY, DIGEST, sif_sha256=made.file_sha256)):
        with pytest.raises(ImageError) as caught:
            prepare_image(pin, APPTAINER, tmp_path)
        assert f"pinned  {DIGEST}" in str(caught.value)
        assert f"found   {OTHER_DIGEST}" in str(caught.value)


@pytest.mark.usefixtures("converter")
def test_other_tools_make_other_bytes_and_that_is_said(tmp_path: Path) -> None:
    pin = ImagePin("cpu", REPOSITORY, DIGEST, sif_sha256=OTHER_DIGEST)
    with pytest.raises(ImageError) as caught:
        prepare_image(pin, APPTAINER, tmp_path)
    said = str(caught.value)
    assert "by apptainer 1.4, and another version makes other bytes" in said
    assert "python -m launcher image pin cpu --sif" in said


@pytest.mark.usefixtures("converter")
def test_a_file_of_a_killed_conversion_is_not_taken_for_one(tmp_path: Path) -> None:
    path = Path(image_argument(PIN, ImageFormat.SIF, tmp_path))
    path.write_bytes(b"half")  # moved into place, but its sidecar was not written
    partial = tmp_path / f".0123abcd.partial.{path.name}"
    partial.write_bytes(b"less")
    made = prepare_image(PIN, APPTAINER, tmp_path)
    assert path.read_bytes() == BYTES
    assert made.file_sha256 == sha256_of(path)
    assert not partial.exists()


@pytest.mark.usefixtures("converter")
def test_a_file_that_was_copied_here_counts_by_its_pinned_checksum(tmp_path: Path) -> None:
    made = prepare_image(PIN, APPTAINER, tmp_path / "there")
    pin = ImagePin("cpu", REPOSITORY, DIGEST, sif_sha256=made.file_sha256)
    here = tmp_path / "here"
    here.mkdir()
    path = here / Path(made.argument).name
    path.write_bytes(BYTES)
    found = prepare_image(pin, APPTAINER, here, offline=True)
    assert found.verified == DIGEST
    assert not sidecar_path(path).exists()


@pytest.mark.usefixtures("converter")
def test_a_folder_that_others_write_to_proves_nothing(tmp_path: Path) -> None:
    made = prepare_image(PIN, APPTAINER, tmp_path / "cache")
    (tmp_path / "cache").chmod(0o770)
    with pytest.raises(ImageError, match=r"others may write to it \(mode 770\)"):
        prepare_image(PIN, APPTAINER, tmp_path / "cache")
    pin = ImagePin("cpu", REPOSITORY, DIGEST, sif_sha256=made.file_sha256)
    assert prepare_image(pin, APPTAINER, tmp_path / "cache").verified == DIGEST
    if os.geteuid() == 0:
        (tmp_path / "cache").chmod(0o700)
        os.chown(tmp_path / "cache", 12345, 12345)
        with pytest.raises(ImageError, match=r"it belongs to another user \(id 12345\)"):
            prepare_image(PIN, APPTAINER, tmp_path / "cache")


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_a_damaged_sidecar_is_told(tmp_path: Path, damage: str) -> None:
    path = Path(prepare_image(PIN, APPTAINER, tmp_path).argument)
    sidecar_path(path).write_text(damage)
    with pytest.raises(ImageError, match=r"\.sif\.json cannot be read: .* Remove it and"):
        prepare_image(PIN, APPTAINER, tmp_path)


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def fail(pin: ImagePin, target: Path, tools: Tools) -> Converted:
        target.write_bytes(b"half")
        raise ImageError("apptainer failed:\n  no space")

    monkeypatch.setattr(convert, "convert_to_sif", fail)
    with pytest.raises(ImageError, match="no space"):
        prepare_image(PIN, APPTAINER, tmp_path)
    assert [each.name for each in tmp_path.iterdir() if not each.name.endswith(".lock")] == []


def test_an_unpinned_file_is_marked_by_its_own_digest(tmp_path: Path, monkeypatch) -> None:
    def by_tag(pin: ImagePin, target: Path, tools: Tools) -> Converted:
        target.write_bytes(BYTES)
        return Converted(pin.asked, pin.asked, "apptainer 1.4")

    monkeypatch.setattr(convert, "convert_to_sif", by_tag)
    pin = ImagePin("a:1", repository="a:1", unpinned=True)
    found = prepare_image(pin, APPTAINER, tmp_path)
    assert (found.asked, found.verified) == ("a:1", sha256_of(Path(found.argument)))


def convert_slowly(target: Path, started: Path) -> Converted:
    with started.open("a") as file:
        file.write("x")
    target.write_bytes(b"one ")
    time.sleep(0.3)
    with target.open("ab") as file:
        file.write(b"two")
    return Converted(DIGEST, "x", "slow 1")


def make_one(path: Path, started: Path) -> None:
    make_once(
        path,
        lambda target: convert_slowly(target, started),
        is_current=lambda: path.exists() and sidecar_path(path).exists(),
    )
    assert path.read_bytes() == b"one two"


def test_of_several_processes_one_converts_and_the_others_wait(tmp_path: Path) -> None:
    path, started = tmp_path / "a.sif", tmp_path / "started"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=make_one, args=(path, started)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert started.read_text() == "x"
    sidecar = read_sidecar(path)
    assert sidecar is not None
    assert sidecar.sha256 == sha256_of(path)


def test_an_own_file_is_verified_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.sif"
    path.write_bytes(BYTES)
    pin = ImagePin(str(path), sif_sha256=sha256_of(path))
    found = prepare_image(pin, APPTAINER, tmp_path / "cache")
    assert (found.argument, found.verified) == (str(path), sha256_of(path))
    path.write_bytes(b"other")
    with pytest.raises(ImageError, match="ask for it with its checksum"):
        prepare_image(pin, APPTAINER, tmp_path / "cache")
