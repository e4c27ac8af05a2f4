"""What of a pinned image is on this machine, and whether it is what is pinned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images.cache import cached_path
from launcher.images.engine import ENGINES, load_engine
from launcher.images.pin import ImagePin
from launcher.images.proof import verify_file
from launcher.images.verify import prepare_in_engine

_FILES = {"sif": ImageFormat.SIF, "sqsh": ImageFormat.SQSH}


@dataclass(frozen=True)
class Finding:
    """One place where an image may be.

    Attributes:
        where: ``docker``, ``podman``, ``sif`` or ``sqsh``.
        told: what was found there.
        differs: it is not what is pinned.
    """

    where: str
    told: str
    differs: bool = False


def look_up(pin: ImagePin, engine_name: str, cache_dir: Path) -> list[Finding]:
    """Return what is where, all of it verified; nothing is fetched or converted."""
    found = []
    for name in _present_in(pin, engine_name):
        try:
            image = prepare_in_engine(pin, load_engine(name), offline=True)
            found.append(Finding(name, f"verified {image.verified}"))
        except ImageError as error:
            found.append(Finding(name, str(error), differs=True))
    for name, path in _files(pin, cache_dir).items():
        try:
            image = verify_file(pin, path, _FILES[name])
            found.append(Finding(name, f"verified {image.file_sha256}"))
        except ImageError as error:
            found.append(Finding(name, str(error), differs=True))
    return found or [Finding("–", "not on this machine")]


def presence(pin: ImagePin, engine_name: str, cache_dir: Path) -> list[str]:
    """Return where an image is, without reading it."""
    return [*_present_in(pin, engine_name), *_files(pin, cache_dir)]


def _present_in(pin: ImagePin, engine_name: str) -> list[str]:
    present = []
    for name in ENGINES if engine_name == "auto" else (engine_name,):
        try:
            engine = load_engine(name)
        except ImageError:  # not installed, or its daemon does not run
            continue
        names = [each for each in (pin.asked, pin.image_id) if each]
        if any(engine.inspect(each) is not None for each in names):
            present.append(name)
    return present


def _files(pin: ImagePin, cache_dir: Path) -> dict[str, Path]:
    paths = {name: cached_path(pin, each, cache_dir) for name, each in _FILES.items()}
    return {name: path for name, path in paths.items() if path.exists()}
