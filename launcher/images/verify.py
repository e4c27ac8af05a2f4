"""An image made present on this machine, and proof that it is the one that is pinned.

What the rest of the launcher calls: :func:`resolve_pin`, :func:`image_argument`,
:func:`changed_inputs` and :func:`prepare_image`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images.cache import (
    Converted,
    cached_path,
    checksum_of,
    default_cache_dir,
    make_once,
    own_file,
    pull_command,
    sidecar_path,
    suffix_of,
)
from launcher.images.engine import Engine, Say, load_engine
from launcher.images.pin import ImagePin, VerifiedImage
from launcher.images.proof import verify_file, verify_in_store
from launcher.images.resolve import resolve_pin
from launcher.images.source import changed_inputs
from launcher.images.unpack import Tools

__all__ = [
    "NamedRuntime",
    "Runtime",
    "changed_inputs",
    "image_argument",
    "prepare_image",
    "resolve_pin",
]


class Runtime(Protocol):
    """What is to be known of a container runtime here."""

    @property
    def name(self) -> str:
        """Such as ``docker``."""

    @property
    def image_format(self) -> ImageFormat:
        """The form in which it takes its image."""


@dataclass(frozen=True)
class NamedRuntime:
    """A container runtime without its settings."""

    name: str
    image_format: ImageFormat


def image_argument(pin: ImagePin, image_format: ImageFormat, cache_dir: Path) -> str:
    """Return what a runtime is given for an image. Pure: nothing is looked up.

    Raises:
        ImageError: the image is a file of another format.
    """
    _refuse_other_file(pin, image_format)
    if image_format is ImageFormat.NONE:
        return ""
    if image_format is ImageFormat.OCI:
        return pin.asked
    return str(own_file(pin, image_format) or cached_path(pin, image_format, cache_dir))


def prepare_image(
    pin: ImagePin,
    container: Runtime,
    cache_dir: Path,
    *,
    offline: bool = False,
    say: Say = lambda line: None,
) -> VerifiedImage:
    """Have an image on this machine in the form that the runtime takes, and verify it.

    Args:
        pin: the image.
        container: the runtime; its ``settings.executable`` and ``settings.global_options`` are used
            where it has them.
        cache_dir: folder of converted images.
        offline: neither fetch nor convert.
        say: takes the lines that say how it goes on.

    Raises:
        ImageError: it cannot be had, or what is here is not what is pinned; the message then has
            both digests.
    """
    _refuse_other_file(pin, container.image_format)
    if container.image_format is ImageFormat.NONE:
        return VerifiedImage(argument="", asked=pin.asked, verified="")
    if container.image_format is ImageFormat.OCI:
        settings = getattr(container, "settings", None)
        engine = load_engine(
            container.name,
            executable=getattr(settings, "executable", None),
            options=getattr(settings, "global_options", ()),
        )
        return prepare_in_engine(pin, engine, offline=offline, say=say)
    path = own_file(pin, container.image_format)
    if path is None:
        path = cached_path(pin, container.image_format, cache_dir)
        _have_file(pin, path, container, offline=offline, say=say)
    return verify_file(pin, path, container.image_format)


def prepare_in_engine(
    pin: ImagePin, engine: Engine, *, offline: bool = False, say: Say = lambda line: None
) -> VerifiedImage:
    """Have an image in the store of Docker or Podman, and verify it there.

    Raises:
        ImageError: as :func:`prepare_image`.
    """
    image = engine.inspect(pin.asked)
    if image is None and pin.image_id is not None:
        image = engine.inspect(pin.image_id)  # built or loaded here, and never fetched
        if image is not None:
            return verify_in_store(pin, image, argument=image.image_id)
    if image is None:
        if pin.repository is None or offline:
            how = _how(pin, engine.name, default_cache_dir())
            raise ImageError(f"{_missing(pin)} {engine.name} has no such image. {how}")
        engine.pull(pin.asked, say)
        image = engine.inspect(pin.asked)
    if image is None:
        raise ImageError(f"{engine.name} pulled {pin.asked} and does not have it")
    return verify_in_store(pin, image, argument=pin.asked)


def _have_file(pin: ImagePin, path: Path, container: Runtime, *, offline: bool, say: Say) -> None:
    """Convert the image unless its file is there."""
    image_format = container.image_format
    has_checksum = checksum_of(pin, image_format) is not None

    def is_current() -> bool:
        return path.exists() and (has_checksum or sidecar_path(path).exists())

    def convert(target: Path) -> Converted:
        from launcher.images.convert import convert_to_sif, convert_to_sqsh

        settings = getattr(container, "settings", None)
        is_sif = image_format is ImageFormat.SIF
        tools = Tools(apptainer=getattr(settings, "executable", None) if is_sif else None, say=say)
        return (convert_to_sif if is_sif else convert_to_sqsh)(pin, target, tools)

    if is_current():
        return
    if offline or (pin.repository is None and pin.image_id is None):
        raise ImageError(
            f"{_missing(pin)} There is no {path}. {_how(pin, container.name, path.parent)}"
        )
    make_once(path, convert, is_current=is_current)


def _missing(pin: ImagePin) -> str:
    return f"the image '{pin.name}' ({pin.asked}) is not on this machine."


def _how(pin: ImagePin, runtime: str, cache_dir: Path) -> str:
    if pin.repository is None and pin.image_id is None:
        return "Copy the file there; nothing is known that it could be made of."
    if pin.repository is None:
        return (
            "It was never pushed. Build it here, or push it where it was built: "
            f"python -m launcher image push {pin.name} --to REPOSITORY"
        )
    return f"Where there is a network, type: {pull_command(pin, runtime, cache_dir)}"


def _refuse_other_file(pin: ImagePin, image_format: ImageFormat) -> None:
    for other in (ImageFormat.SIF, ImageFormat.SQSH):
        if other is not image_format and own_file(pin, other) is not None:
            takers = "apptainer" if other is ImageFormat.SIF else "enroot or charliecloud"
            raise ImageError(
                f"the image {pin.name} is a {suffix_of(other)} file, which this container runtime "
                f"does not take: --container {takers}"
            )
