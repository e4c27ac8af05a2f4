"""An engine that has images without Docker, and a copy of ``containers`` to change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from launcher.errors import ImageError
from launcher.images import source
from launcher.images.engine import BuildRequest, LocalImage, Say

DIGEST = "sha256:" + "d" * 64
OTHER_DIGEST = "sha256:" + "e" * 64
IMAGE_ID = "sha256:" + "1" * 64
REPOSITORY = "localhost:5000/team/cpu"


@dataclass
class FakeEngine:
    """A store of images, and a registry behind it."""

    name: str = "docker"
    local: dict[str, LocalImage] = field(default_factory=dict)
    registry: dict[str, LocalImage] = field(default_factory=dict)
    built: list[BuildRequest] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)

    def version(self) -> str:
        return f"{self.name} 1.0"

    def inspect(self, reference: str) -> LocalImage | None:
        by_id = {image.image_id: image for image in self.local.values()}
        return self.local.get(reference) or by_id.get(reference)

    def pull(self, reference: str, say: Say) -> None:
        self.pulled.append(reference)
        if reference not in self.registry:
            raise ImageError(f"{reference} could not be pulled: manifest unknown")
        self.local[reference] = self.registry[reference]

    def push(self, reference: str, say: Say) -> str:
        return DIGEST

    def tag(self, image_id: str, reference: str) -> None:
        pass

    def remove(self, reference: str) -> None:
        self.local.pop(reference, None)

    def build(self, request: BuildRequest, say: Say) -> str:
        self.built.append(request)
        self.local[request.tag] = LocalImage(IMAGE_ID, labels=request.labels)
        return IMAGE_ID

    def save(self, reference: str, archive: Path) -> None:
        archive.write_bytes(b"")

    def export(self, reference: str, output: IO[bytes]) -> None:
        output.write(b"")


@pytest.fixture
def engine() -> FakeEngine:
    """Return an engine whose store and registry are empty."""
    return FakeEngine()


@pytest.fixture
def containers(tmp_path: Path) -> Path:
    """Return a copy of the project's ``containers``, whose lock file pins nothing."""
    folder = tmp_path / "containers"
    shutil.copytree(source.CONTAINERS_DIR, folder)
    return folder


@pytest.fixture
def lock_file(containers: Path) -> Iterator[Path]:
    """Return the lock file of that copy."""
    return containers / "images.lock.yaml"
