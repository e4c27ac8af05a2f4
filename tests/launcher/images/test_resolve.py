"""What was asked for becomes one image or a message that says what to type."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images.lock import LockEntry, update_lock
from launcher.images.pin import ImagePin
from launcher.images.verify import image_argument, resolve_pin

D = "sha256:" + "d" * 64
OTHER = "sha256:" + "e" * 64
I = "sha256:" + "1" * 64  # noqa: E741  an id
BYTES = b"squashed"
CHECKSUM = "sha256:" + hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def pinned(lock_file: Path) -> Path:
    """Return a lock file with an entry `cpu`."""
    entry = LockEntry(repository="team/cpu", digest=D, image_id=I, sif_sha256=CHECKSUM)
    update_lock(lock_file, "cpu", entry)
    return lock_file


def test_a_name_stands_for_its_entry(pinned: Path) -> None:
    pin = resolve_pin("cpu", pinned)
    assert pin == ImagePin("cpu", "team/cpu", D, I, CHECKSUM)
    assert pin.asked == f"team/cpu@{D}"


def test_a_digest_needs_no_entry_and_learns_from_one(pinned: Path) -> None:
    assert resolve_pin(f"x.io/a@{OTHER}", pinned) == ImagePin(f"x.io/a@{OTHER}", "x.io/a", OTHER)
    # A tag beside the digest says nothing.
    assert resolve_pin(f"x.io/a:1@{OTHER}", pinned).repository == "x.io/a"
    mirrored = resolve_pin(f"x.io/mirror@{D}", pinned)
    assert (mirrored.repository, mirrored.image_id, mirrored.sif_sha256) == (
        *("x.io/mirror", I),
        CHECKSUM,
    )
    assert resolve_pin(OTHER, pinned) == ImagePin(OTHER, image_id=OTHER)
    assert resolve_pin(I, pinned).digest == D


@pytest.mark.parametrize("asked", ["team/cpu:latest", "team/cpu", "python:3.11", "localhost:1/x"])
def test_a_tag_is_refused_with_what_to_type(pinned: Path, asked: str) -> None:
    with pytest.raises(ImageError) as caught:
        resolve_pin(asked, pinned)
    said = str(caught.value)
    assert "which may be another image tomorrow" in said
    assert f"python -m launcher image pin NAME {asked}" in said
    assert "--allow-unpinned" in said


def test_a_tag_can_be_allowed_and_is_marked(pinned: Path) -> None:
    pin = resolve_pin("team/cpu", pinned, allow_unpinned=True)
    assert pin == ImagePin("team/cpu", repository="team/cpu:latest", unpinned=True)
    # What is pinned, or misspelt, is not for that reason taken by a tag.
    assert not resolve_pin("cpu", pinned, allow_unpinned=True).unpinned
    with pytest.raises(ImageError, match="there is no image 'cpi'"):
        resolve_pin("cpi", pinned, allow_unpinned=True)


def test_an_image_that_could_be_built_says_so(pinned: Path) -> None:
    with pytest.raises(ImageError) as caught:
        resolve_pin("gpu", pinned)
    said = str(caught.value)
    assert f"the image 'gpu' is not pinned in {pinned}" in said
    assert "python -m launcher image build gpu" in said
    assert "python -m launcher image pin gpu" in said


def test_a_slip_of_the_pen_is_told_the_nearest_name(pinned: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no image 'cpuu'.*Did you mean 'cpu'\?"):
        resolve_pin("cpuu", pinned)


@pytest.mark.parametrize("suffix", [".sif", ".sqsh"])
def test_a_file_counts_by_its_checksum(pinned: Path, hostile_path: Path, suffix: str) -> None:
    path = hostile_path / f"image{suffix}"
    path.write_bytes(BYTES)
    explicit = resolve_pin(f"{path}@{CHECKSUM}", pinned)
    assert explicit.name == str(path)
    assert CHECKSUM in (explicit.sif_sha256, explicit.sqsh_sha256)
    if suffix == ".sif":
        assert explicit.digest == D  # the entry with that checksum
        assert resolve_pin(str(path), pinned) == explicit
    else:
        with pytest.raises(ImageError) as caught:
            resolve_pin(str(path), pinned)
        assert f"ask for it with its checksum: {path}@{CHECKSUM}" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("nowhere.sif", "nowhere.sif cannot be read: No such file"),
        ("x.sif@latest", "'latest' is not a digest"),
        ("a b", "there is no image 'a b'"),
        ("a b:1", "is not the name of an image"),
        ("", "there is no image ''"),
        ("--privileged", "there is no image '--privileged'"),
    ],
)
def test_what_cannot_be_an_image_is_refused(pinned: Path, asked: str, problem: str) -> None:
    with pytest.raises(ImageError) as caught:
        resolve_pin(asked, pinned)
    assert problem in str(caught.value)


def test_what_a_runtime_would_be_given_is_known_without_looking() -> None:
    cache = Path("/cache")
    pushed = ImagePin("cpu", "team/cpu", D, I)
    assert image_argument(pushed, ImageFormat.OCI, cache) == f"team/cpu@{D}"
    assert image_argument(pushed, ImageFormat.SIF, cache) == f"/cache/sha256-{'d' * 64}.sif"
    assert image_argument(pushed, ImageFormat.SQSH, cache) == f"/cache/sha256-{'d' * 64}.sqsh"
    assert image_argument(pushed, ImageFormat.NONE, cache) == ""
    local = ImagePin("cpu", image_id=I)
    assert image_argument(local, ImageFormat.OCI, cache) == I
    assert image_argument(local, ImageFormat.SIF, cache) == f"/cache/sha256-{'1' * 64}.sif"
    unpinned = ImagePin("a:1", repository="a:1", unpinned=True)
    assert image_argument(unpinned, ImageFormat.OCI, cache) == "a:1"
    argument = image_argument(unpinned, ImageFormat.SIF, cache)
    assert argument.startswith("/cache/unpinned-")
    other = ImagePin("a:2", repository="a:2", unpinned=True)
    assert argument != image_argument(other, ImageFormat.SIF, cache)


def test_a_file_is_for_the_runtimes_that_take_it() -> None:
    pin = ImagePin("/images/a.sif", sif_sha256=D)
    assert image_argument(pin, ImageFormat.SIF, Path("/cache")) == "/images/a.sif"
    for image_format in (ImageFormat.OCI, ImageFormat.SQSH):
        with pytest.raises(ImageError, match="does not take: --container apptainer"):
            image_argument(pin, image_format, Path("/cache"))
