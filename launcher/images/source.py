"""What an image is built from: the Dockerfile, and a folder of its own with a lock and image.yaml.

::

    containers/Dockerfile                 of all images
    containers/cpu/image.yaml             base by digest, index of torch
    containers/cpu/requirements.lock      every package by hash
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from launcher.errors import ImageError, did_you_mean
from launcher.images.files import sha256_of
from launcher.images.pin import ImagePin
from launcher.images.reference import parse_reference

CONTAINERS_DIR = Path(__file__).resolve().parents[2] / "containers"
LOCK_FILE = CONTAINERS_DIR / "images.lock.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class ImageSource:
    """One image as it stands in ``containers``.

    Attributes:
        name: its folder's name.
        containers_dir: where the Dockerfile is.
        base: reference of the base image, with its digest.
        torch_index: package index that has this image's build of torch; empty for none but pip's.
    """

    name: str
    containers_dir: Path
    base: str
    torch_index: str = ""

    @property
    def dockerfile(self) -> Path:
        """The Dockerfile, which all images share."""
        return self.containers_dir / "Dockerfile"

    @property
    def requirements(self) -> Path:
        """The locked packages: all that the build sees besides the Dockerfile."""
        return self.containers_dir / self.name / "requirements.lock"

    def inputs(self) -> dict[str, str]:
        """Return the digest of each file that the image is built from.

        Raises:
            ImageError: one is missing or cannot be read.
        """
        files = {name: self.containers_dir / name for name in _input_files(self.name)}
        try:
            return {name: sha256_of(path) for name, path in files.items()}
        except OSError as error:
            raise ImageError(f"the image {self.name} cannot be built: {error}") from error


def containers_dir(lock_file: Path) -> Path:
    """Return where the images of a lock file are built from: beside it, else the project's own."""
    beside = lock_file.parent
    return beside if (beside / "Dockerfile").is_file() else CONTAINERS_DIR


def available(folder: Path) -> list[str]:
    """Return the names of the images that can be built."""
    return sorted(path.parent.name for path in folder.glob("*/image.yaml"))


def load_source(folder: Path, name: str) -> ImageSource:
    """Read an image's ``image.yaml``.

    Raises:
        ImageError: there is no such image, or its file is not as it has to be.
    """
    import yaml

    names = available(folder)
    if not _NAME.fullmatch(name) or name not in names:
        raise ImageError(
            f"there is no image '{name}' to be built in {folder}.{did_you_mean(name, names)} "
            f"Images: {', '.join(names) or 'none'}."
        )
    path = folder / name / "image.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ImageError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    values = _checked(path, content)
    return ImageSource(name, folder, **values)


def changed_inputs(pin: ImagePin, lock_file: Path) -> list[str]:
    """Return the files that are other now than when the pinned image was built from them."""
    folder = containers_dir(lock_file)
    return [name for name, digest in sorted(pin.inputs.items()) if _digest(folder / name) != digest]


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _input_files(name: str) -> list[str]:
    return ["Dockerfile", f"{name}/image.yaml", f"{name}/requirements.lock"]


def _checked(path: Path, content: Any) -> dict[str, str]:
    known = [each.name for each in fields(ImageSource)][2:]
    if not isinstance(content, dict) or "base" not in content:
        raise ImageError(f"{path}: it lacks base: the reference of an image with its digest")
    for key, value in content.items():
        if key not in known:
            raise ImageError(f"{path}: there is no field '{key}'.{did_you_mean(str(key), known)}")
        if not isinstance(value, str):
            raise ImageError(f"{path}: {key}: {value!r} is not a text")
    if parse_reference(content["base"]).digest is None:
        raise ImageError(
            f"{path}: base: '{content['base']}' has no digest, and a tag may be another image "
            "tomorrow. Write NAME@sha256:…"
        )
    return content
