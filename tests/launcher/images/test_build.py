"""Building: what the engine is asked for, and what the lock file then says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.errors import ImageError
from launcher.images import pinning
from launcher.images.build import build, latest_build, lock_entry
from launcher.images.engine import LocalImage
from launcher.images.lock import LockEntry
from launcher.images.source import load_source
from tests.launcher.images.conftest import DIGEST, IMAGE_ID, OTHER_DIGEST, REPOSITORY, FakeEngine

CPU = {"launcher.image": "cpu"}
BUILT = "espnet3-launcher/cpu:latest"
BASE_ID = "sha256:" + "b" * 64


def ignore(line: str) -> None:
    """Take a line of progress."""


def test_a_build_sees_two_files_and_its_base_by_digest(
    engine: FakeEngine, containers: Path
) -> None:
    source = load_source(containers, "cpu")
    engine.registry[source.base] = LocalImage(BASE_ID)
    image = build(engine, source, base=None, pull=False, say=ignore)
    (request,) = engine.built
    assert dict(request.files) == {
        "Dockerfile": containers / "Dockerfile",
        "requirements.lock": containers / "cpu" / "requirements.lock",
    }
    assert request.arguments["BASE"] == source.base
    assert request.arguments["TORCH_INDEX"].startswith("https://")
    assert json.loads(image.labels["launcher.inputs"]) == source.inputs()
    assert latest_build(engine, "cpu").image_id == IMAGE_ID
    assert lock_entry(image, None) == LockEntry(
        image_id=IMAGE_ID, base=source.base, inputs=source.inputs()
    )


@pytest.mark.parametrize(
    ("image", "fixed"),
    [
        (LocalImage(BASE_ID, (f"team/base@{DIGEST}",)), f"team/base@{DIGEST}"),
        (LocalImage(BASE_ID, (f"other/base@{DIGEST}",)), BASE_ID),
        (LocalImage(BASE_ID), BASE_ID),
    ],
)
def test_a_base_by_tag_is_fixed_before_it_is_built_on(
    engine: FakeEngine, containers: Path, image: LocalImage, fixed: str
) -> None:
    engine.local["team/base:1"] = image
    source = load_source(containers, "gpu")
    build(engine, source, base="team/base:1", pull=False, say=ignore)
    assert engine.built[0].arguments["BASE"] == fixed
    assert engine.built[0].labels["launcher.base"] == fixed
    assert engine.pulled == []


def test_a_base_that_cannot_be_had_says_that_another_can_be_named(
    engine: FakeEngine, containers: Path
) -> None:
    with pytest.raises(ImageError, match=r"the base team/base:1 could not .*\n.*--base REFERENCE"):
        build(engine, load_source(containers, "cpu"), base="team/base:1", pull=False, say=ignore)
    with pytest.raises(ImageError, match="an image id cannot be pulled"):
        build(engine, load_source(containers, "cpu"), base=BASE_ID, pull=False, say=ignore)
    assert engine.built == []


def test_pull_asks_the_registry_for_a_base_that_is_here(
    engine: FakeEngine, containers: Path
) -> None:
    engine.local["team/base:1"] = LocalImage("sha256:" + "a" * 64)
    engine.registry["team/base:1"] = LocalImage(BASE_ID)
    build(engine, load_source(containers, "cpu"), base="team/base:1", pull=True, say=ignore)
    assert engine.built[0].arguments["BASE"] == BASE_ID


def test_the_last_build_counts_and_no_other_image_of_that_name(engine: FakeEngine) -> None:
    with pytest.raises(ImageError, match="python -m launcher image build cpu"):
        latest_build(engine, "cpu")
    engine.local[BUILT] = LocalImage(IMAGE_ID, labels={"launcher.image": "gpu"})
    with pytest.raises(ImageError, match="docker has built no image 'cpu'"):
        latest_build(engine, "cpu")
    engine.local[BUILT] = LocalImage(IMAGE_ID, labels=CPU)
    assert latest_build(engine, "cpu").image_id == IMAGE_ID


def test_labels_that_are_not_ours_do_no_harm() -> None:
    image = LocalImage(IMAGE_ID, labels={"launcher.inputs": "[1"}, created="2026-11-23T06:40:15.5Z")
    assert lock_entry(image, None) == LockEntry(image_id=IMAGE_ID, built="2026-11-23T06:40:15Z")


@pytest.fixture
def pinning_engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Have the engine used by what pins."""
    monkeypatch.setattr(pinning, "load_engine", lambda name: engine)
    return engine


def test_what_was_built_last_is_pinned_where_its_registry_has_it(
    pinning_engine: FakeEngine,
) -> None:
    # Podman tells the digest of what it would push, too: only the registry knows which is which.
    digests = (f"{REPOSITORY}@{OTHER_DIGEST}", f"{REPOSITORY}@{DIGEST}")
    image = LocalImage(IMAGE_ID, digests, labels=CPU)
    pinning_engine.local[BUILT] = image
    pinning_engine.registry[f"{REPOSITORY}@{DIGEST}"] = image
    entry = pinning.entry_for("cpu", None, "auto", ignore)
    assert (entry.repository, entry.digest, entry.image_id) == (REPOSITORY, DIGEST, IMAGE_ID)


def test_what_was_never_pushed_is_pinned_by_its_id(pinning_engine: FakeEngine) -> None:
    pinning_engine.local[BUILT] = LocalImage(IMAGE_ID, labels=CPU)
    assert pinning.entry_for("cpu", None, "auto", ignore) == LockEntry(image_id=IMAGE_ID)
    assert pinning.entry_for("cpu", IMAGE_ID, "auto", ignore) == LockEntry(image_id=IMAGE_ID)
    with pytest.raises(ImageError, match=r"there is no image sha256:dd.* to pin as cpu"):
        pinning.entry_for("cpu", DIGEST, "auto", ignore)


def test_what_the_registry_does_not_have_is_not_pinned(pinning_engine: FakeEngine) -> None:
    pinning_engine.local[BUILT] = LocalImage(IMAGE_ID, (f"{REPOSITORY}@{DIGEST}",), labels=CPU)
    with pytest.raises(ImageError) as caught:
        pinning.entry_for("cpu", None, "auto", ignore)
    said = str(caught.value)
    assert "manifest unknown" in said
    assert f"python -m launcher image push cpu --to {REPOSITORY}" in said
    assert f"python -m launcher image pin cpu {IMAGE_ID}" in said


def test_an_image_of_several_repositories_is_not_guessed(pinning_engine: FakeEngine) -> None:
    names = (f"a/cpu@{DIGEST}", f"b/cpu@{OTHER_DIGEST}")
    image = LocalImage(IMAGE_ID, names, labels=CPU)
    pinning_engine.local[BUILT] = image
    with pytest.raises(ImageError) as caught:
        pinning.entry_for("cpu", None, "auto", ignore)
    assert f"a/cpu@{DIGEST}\n  b/cpu@{OTHER_DIGEST}" in str(caught.value)
    pinning_engine.local[names[1]] = image
    assert pinning.entry_for("cpu", names[1], "auto", ignore).digest == OTHER_DIGEST
    same = names[1].partition("@")[0]  # where it is pinned already
    pinning_engine.registry[names[1]] = image
    entry = pinning.entry_for("cpu", None, "auto", ignore, repository=same)
    assert (entry.repository, entry.digest) == (same, OTHER_DIGEST)


def test_a_tag_is_looked_up_in_its_registry_even_if_it_is_here(pinning_engine: FakeEngine) -> None:
    tag, name = f"{REPOSITORY}:1", f"{REPOSITORY}@{DIGEST}"
    old = LocalImage("sha256:" + "0" * 64, (f"{REPOSITORY}@{OTHER_DIGEST}",))
    pinning_engine.local[tag] = old
    pinning_engine.registry[tag] = pinning_engine.registry[name] = LocalImage(IMAGE_ID, (name,))
    entry = pinning.entry_for("cpu", tag, "auto", ignore)
    assert (entry.repository, entry.digest, entry.image_id) == (REPOSITORY, DIGEST, IMAGE_ID)


def test_a_digest_is_pinned_as_it_was_given(pinning_engine: FakeEngine) -> None:
    # Of an image for several platforms, the registry's digest is that of the list.
    digests = (f"{REPOSITORY}@{OTHER_DIGEST}", f"{REPOSITORY}@{DIGEST}")
    pinning_engine.local[f"{REPOSITORY}@{DIGEST}"] = LocalImage(IMAGE_ID, digests)
    entry = pinning.entry_for("cpu", f"{REPOSITORY}@{DIGEST}", "auto", ignore)
    assert (entry.digest, entry.image_id) == (DIGEST, IMAGE_ID)
    assert pinning_engine.pulled == []


def test_without_an_engine_a_digest_can_be_pinned_and_a_tag_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(name: str) -> FakeEngine:
        raise ImageError("no Docker daemon answers.")

    monkeypatch.setattr(pinning, "load_engine", none)
    entry = pinning.entry_for("cpu", f"{REPOSITORY}@{DIGEST}", "auto", ignore)
    assert entry == LockEntry(repository=REPOSITORY, digest=DIGEST)
    with pytest.raises(ImageError, match=f"Or name it by digest: {REPOSITORY}@sha256:"):
        pinning.entry_for("cpu", f"{REPOSITORY}:1", "auto", ignore)


def test_checksums_stay_with_their_image_and_go_with_it(tmp_path: Path) -> None:
    entry = LockEntry(REPOSITORY, DIGEST, IMAGE_ID)
    previous = LockEntry(REPOSITORY, DIGEST, IMAGE_ID, sif_sha256=OTHER_DIGEST)
    kept = pinning.with_checksums("cpu", entry, previous, [], tmp_path, ignore)
    assert kept == previous
    other = LockEntry(REPOSITORY, OTHER_DIGEST, IMAGE_ID)
    assert pinning.with_checksums("cpu", other, previous, [], tmp_path, ignore) == other
