"""An image in the store of an engine: fetched by digest, and held against the pin."""

from __future__ import annotations

import pytest

from launcher.errors import ImageError
from launcher.images.engine import LocalImage
from launcher.images.pin import ImagePin
from launcher.images.verify import prepare_in_engine
from tests.launcher.images.conftest import DIGEST, IMAGE_ID, OTHER_DIGEST, REPOSITORY, FakeEngine

PIN = ImagePin("cpu", REPOSITORY, DIGEST, IMAGE_ID)
NAME = f"{REPOSITORY}@{DIGEST}"
IMAGE = LocalImage(IMAGE_ID, (NAME,))


def test_an_image_that_is_here_is_not_fetched(engine: FakeEngine) -> None:
    engine.local[NAME] = IMAGE
    found = prepare_in_engine(PIN, engine)
    assert (found.argument, found.asked, found.verified) == (NAME, DIGEST, DIGEST)
    assert engine.pulled == []


def test_an_image_that_is_not_here_is_fetched_by_digest(engine: FakeEngine) -> None:
    engine.registry[NAME] = IMAGE
    assert prepare_in_engine(PIN, engine).verified == DIGEST
    assert engine.pulled == [NAME]


def test_offline_nothing_is_fetched(engine: FakeEngine) -> None:
    engine.registry[NAME] = IMAGE
    with pytest.raises(ImageError) as caught:
        prepare_in_engine(PIN, engine, offline=True)
    assert engine.pulled == []
    assert "python -m launcher image pull cpu" in str(caught.value)


def test_the_same_manifest_from_another_repository_is_the_same_image(engine: FakeEngine) -> None:
    """Podman finds it by the digest; what it is called where it came from says nothing more."""
    engine.local[NAME] = LocalImage(IMAGE_ID, (f"other/repository@{DIGEST}",))
    assert prepare_in_engine(PIN, engine).verified == DIGEST
    assert engine.pulled == []


@pytest.mark.parametrize(
    ("image", "pinned", "found"),
    [
        (LocalImage(IMAGE_ID, (f"{REPOSITORY}@{OTHER_DIGEST}",)), DIGEST, OTHER_DIGEST),
        (LocalImage("sha256:" + "2" * 64, (NAME,)), IMAGE_ID, "sha256:" + "2" * 64),
    ],
)
def test_another_image_is_refused_with_both_digests(
    engine: FakeEngine, image: LocalImage, pinned: str, found: str
) -> None:
    engine.local[NAME] = image
    with pytest.raises(ImageError) as caught:
        prepare_in_engine(PIN, engine)
    said = str(caught.value)
    assert f"pinned  {pinned}" in said
    assert f"found   {found}" in said


def test_what_was_built_or_loaded_here_counts_by_its_id(engine: FakeEngine) -> None:
    engine.local["some:tag"] = LocalImage(IMAGE_ID)
    found = prepare_in_engine(PIN, engine, offline=True)
    assert (found.argument, found.verified) == (IMAGE_ID, IMAGE_ID)
    # But not against what the store itself knows of that repository.
    engine.local["some:tag"] = LocalImage(IMAGE_ID, (f"{REPOSITORY}@{OTHER_DIGEST}",))
    with pytest.raises(ImageError, match="is not the one that is pinned"):
        prepare_in_engine(PIN, engine, offline=True)


def test_dockers_containerd_store_names_an_image_by_its_manifest(engine: FakeEngine) -> None:
    engine.local[NAME] = LocalImage(DIGEST, (NAME,))
    assert prepare_in_engine(PIN, engine).verified == DIGEST


def test_an_image_that_was_never_pushed_is_not_looked_for(engine: FakeEngine) -> None:
    with pytest.raises(ImageError) as caught:
        prepare_in_engine(ImagePin("cpu", image_id=IMAGE_ID), engine)
    assert "It was never pushed" in str(caught.value)
    assert engine.pulled == []


def test_of_an_unpinned_image_what_it_happens_to_be_is_told(engine: FakeEngine) -> None:
    pin = ImagePin("a:1", repository="a:1", unpinned=True)
    engine.registry["a:1"] = LocalImage(IMAGE_ID, (f"a@{OTHER_DIGEST}",))
    found = prepare_in_engine(pin, engine)
    assert (found.argument, found.asked, found.verified) == ("a:1", "a:1", f"a@{OTHER_DIGEST}")


def test_docker_hub_images_are_found_by_their_short_name(engine: FakeEngine) -> None:
    pin = ImagePin("py", "docker.io/library/python", DIGEST)
    engine.local[pin.asked] = LocalImage(IMAGE_ID, (f"python@{DIGEST}",))
    assert prepare_in_engine(pin, engine).verified == DIGEST
