"""The root file system of an image, unpacked by Apptainer, which also fetches it by digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ImageError
from launcher.images import programs, rootfs
from launcher.images.engine import Engine, LocalImage, Say, load_engine
from launcher.images.pin import ImagePin
from launcher.images.reference import is_loopback

_PUSH = "push it where it was built: python -m launcher image push NAME --to REPOSITORY"


@dataclass(frozen=True)
class Tools:
    """What converts.

    Attributes:
        apptainer: program, or None for the one that is found.
        engine: Docker or Podman, by name: ``auto`` for the one that answers.
        say: takes the lines that say how it goes on.
    """

    apptainer: str | None = None
    engine: str = "auto"
    say: Say = lambda line: None


@dataclass(frozen=True)
class Unpacked:
    """An unpacked image: its root folder, and the digest of what was unpacked."""

    root: Path
    source: str


@contextmanager
def unpacked(pin: ImagePin, tools: Tools) -> Iterator[Unpacked]:
    """Unpack an image into a temporary folder, in the same form every time.

    Raises:
        ImageError: it cannot be had, or Apptainer failed.
    """
    apptainer = programs.find_apptainer(tools.apptainer)
    with programs.workplace() as work:
        root, archive = work / "root", work / "image.tar"
        source, digest = _source(pin, archive, tools)
        tools.say(f"{Path(apptainer).name} unpacks {pin.asked}")
        options = ["--disable-cache", "--fix-perms", "--force", "--sandbox"]
        if pin.repository is not None and is_loopback(pin.repository):
            options.append("--no-https")
        begun_s = rootfs.now_s()
        programs.run([apptainer, "--silent", "build", *options, str(root), source], "apptainer")
        archive.unlink(missing_ok=True)
        try:
            rootfs.make_timeless(root, unpacked_at_s=begun_s)
        except (OSError, ValueError) as error:
            raise ImageError(f"{pin.asked}, unpacked, cannot be packed: {error}") from error
        yield Unpacked(root, digest)


def image_in(engine: Engine, pin: ImagePin, say: Say) -> LocalImage:
    """Return an image as an engine has it, fetched from its registry where it has to be.

    Raises:
        ImageError: it is in neither.
    """
    image = _local(engine, pin)
    if image is None and pin.repository is not None:
        engine.pull(pin.asked, say)
        image = _local(engine, pin)
    if image is None:
        raise ImageError(f"{engine.name} has no {pin.asked}, and it is in no registry. {_PUSH}")
    return image


def _source(pin: ImagePin, archive: Path, tools: Tools) -> tuple[str, str]:
    """Return what Apptainer is to unpack, and its digest.

    What a registry has is fetched from there by digest, which Apptainer checks; what was never
    pushed is saved by the engine that built it.
    """
    if pin.repository is not None and pin.digest is not None:
        return f"docker://{pin.repository}@{pin.digest}", pin.digest
    engine = None
    with suppress(ImageError):
        engine = load_engine(tools.engine)
    image = _local(engine, pin) if engine is not None else None
    if engine is not None and image is not None:
        tools.say(f"{engine.name} saves {image.image_id}")
        engine.save(image.image_id, archive)
        return f"docker-archive:{archive}", image.image_id
    if pin.repository is not None:  # unpinned: by its tag
        return f"docker://{pin.repository}", pin.asked
    raise ImageError(f"{pin.asked} is in no registry, and no engine here has it. {_PUSH}")


def _local(engine: Engine, pin: ImagePin) -> LocalImage | None:
    image = engine.inspect(pin.asked)
    if image is None and pin.image_id is not None:
        image = engine.inspect(pin.image_id)
    return image
