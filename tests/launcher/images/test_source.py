"""What images are built from: complete, by hash, and known when it changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.errors import ImageError
from launcher.images.pin import ImagePin
from launcher.images.source import (
    CONTAINERS_DIR,
    available,
    changed_inputs,
    containers_dir,
    load_source,
)

REPOSITORY = Path(__file__).resolve().parents[3]
_PACKAGE = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE | re.IGNORECASE)


def packages(lock: Path) -> set[tuple[str, str]]:
    """Return names and versions; a lock for several Pythons has some packages more than once."""
    return set(_PACKAGE.findall(lock.read_text()))


def test_both_images_have_a_base_by_digest() -> None:
    assert available(CONTAINERS_DIR) == ["cpu", "gpu"]
    for name in available(CONTAINERS_DIR):
        source = load_source(CONTAINERS_DIR, name)
        assert re.search(r"@sha256:[0-9a-f]{64}$", source.base)
        assert sorted(source.inputs()) == [
            *("Dockerfile", f"{name}/image.yaml", f"{name}/requirements.lock")
        ]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_locks_have_a_hash_for_everything_and_the_projects_versions(name: str) -> None:
    lock = CONTAINERS_DIR / name / "requirements.lock"
    text = lock.read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    here = packages(lock)
    assert ("torch", "2.13.0+cpu" if name == "cpu" else "2.13.0") in here
    # What is not the project's is torch and what its build for an accelerator brings.
    others = {package for package, _ in here - packages(REPOSITORY / "requirements" / "run.lock")}
    others -= {"torch", "triton"}
    assert all(package.startswith(("nvidia-", "cuda-")) for package in others), others
    assert bool(others) is (name == "gpu")
    # Nothing of the project's is missing that Linux and this Python want.
    wanted = re.findall(r"^([a-z0-9._-]+)", (REPOSITORY / "requirements/run.in").read_text(), re.M)
    assert set(wanted) <= {package for package, _ in here}


def test_the_image_has_the_torch_of_the_environment() -> None:
    (torch,) = re.findall(
        r"^torch==(\S+)", (REPOSITORY / "requirements/torch.txt").read_text(), re.M
    )
    assert torch == "2.13.0"


def test_a_changed_input_is_named(containers: Path, lock_file: Path) -> None:
    pin = ImagePin("cpu", image_id="x", inputs=load_source(containers, "cpu").inputs())
    assert changed_inputs(pin, lock_file) == []
    (containers / "cpu" / "requirements.lock").write_text("torch==1\n")
    assert changed_inputs(pin, lock_file) == ["cpu/requirements.lock"]
    (containers / "Dockerfile").unlink()
    assert containers_dir(lock_file) == CONTAINERS_DIR
    (containers / "Dockerfile").write_text("FROM scratch\n")
    assert changed_inputs(pin, lock_file) == ["Dockerfile", "cpu/requirements.lock"]
    assert changed_inputs(ImagePin("x", image_id="x"), lock_file) == []


def test_a_lock_file_elsewhere_is_held_against_the_projects_inputs(tmp_path: Path) -> None:
    pin = ImagePin("cpu", image_id="x", inputs=load_source(CONTAINERS_DIR, "cpu").inputs())
    assert changed_inputs(pin, tmp_path / "images.lock.yaml") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("base: python:3.11", "base: 'python:3.11' has no digest"),
        ("{}", "it lacks base"),
        ("", "it lacks base"),
        ("- base", "it lacks base"),
        ("base: {", "cannot be read"),
        (f"base: a@sha256:{'0' * 64}\nindex: x", "no field 'index'"),
        (f"base: a@sha256:{'0' * 64}\ntorch_inde: x", "Did you mean 'torch_index'?"),
        (f"base: a@sha256:{'0' * 64}\ntorch_index: 3", "torch_index: 3 is not a text"),
    ],
)
def test_a_mistake_in_image_yaml_is_named(containers: Path, text: str, problem: str) -> None:
    path = containers / "cpu" / "image.yaml"
    path.write_text(text)
    with pytest.raises(ImageError) as caught:
        load_source(containers, "cpu")
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["cp", "../cpu", "", "nothing"])
def test_an_image_that_there_is_none_of(containers: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"there is no image .* Images: cpu, gpu\."):
        load_source(containers, name)
