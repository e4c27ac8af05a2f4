"""What is here, held against what is pinned. A difference is told with both digests."""

from __future__ import annotations

import shlex
from pathlib import Path

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images.cache import (
    Sidecar,
    checksum_of,
    distrust,
    own_file,
    pull_command,
    read_sidecar,
    sidecar_path,
)
from launcher.images.engine import LocalImage
from launcher.images.files import sha256_of
from launcher.images.pin import ImagePin, VerifiedImage
from launcher.images.reference import is_digest


def verify_in_store(pin: ImagePin, image: LocalImage, *, argument: str) -> VerifiedImage:
    """Verify what Docker or Podman has: digest of the manifest, id of the configuration.

    Args:
        pin: what is pinned.
        image: as the engine has it.
        argument: what it was looked up by, and what the runtime will be given.

    Raises:
        ImageError: it is another image.
    """
    if pin.unpinned:
        found = next(iter(image.repo_digests), image.image_id)
        return VerifiedImage(argument, asked=pin.asked, verified=found)
    digests = image.digests_in(pin.repository) if pin.repository else ()
    # Podman knows an image that it fetched from one repository by its digest in any other.
    everywhere = tuple(each.rpartition("@")[2] for each in image.repo_digests)
    digests = digests or tuple(each for each in everywhere if each == pin.digest)
    # What was built or loaded here has none: its id, a digest of all that is in it, counts.
    is_known = bool(digests) or argument != image.image_id
    if pin.digest is not None and is_known and pin.digest not in digests:
        raise ImageError(_differs(pin, "the manifest", pin.digest, ", ".join(digests) or "none"))
    # Docker's containerd store names an image by its manifest.
    if pin.image_id is not None and image.image_id not in (pin.image_id, pin.digest):
        raise ImageError(_differs(pin, "the image id", pin.image_id, image.image_id))
    found = image.image_id if pin.digest is None or not digests else pin.digest
    return VerifiedImage(argument, asked=found, verified=found)


def verify_file(pin: ImagePin, path: Path, image_format: ImageFormat) -> VerifiedImage:
    """Verify a SIF or squashfs file: all of its bytes, and what it was made of.

    Its bytes are held against the checksum in the lock file. Where none is pinned, against that of
    the sidecar, which was written when the file was made of the pinned image.

    Raises:
        ImageError: it cannot be read or verified, or it is another one.
    """
    sidecar = read_sidecar(path)
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ImageError(f"the image file {path} cannot be read: {error.strerror}") from error
    _check_bytes(pin, path, found, checksum_of(pin, image_format), sidecar)
    source = _checked_source(pin, path, sidecar) or found
    is_read_inside = image_format is ImageFormat.SIF  # Apptainer keeps the variables in the file
    return VerifiedImage(
        argument=str(path),
        asked=pin.asked if pin.unpinned else pin.digest or pin.image_id or pin.asked,
        verified=source,
        environment=dict(sidecar.environment) if sidecar and not is_read_inside else {},
        path=path,
        file_sha256=found,
    )


def _check_bytes(
    pin: ImagePin, path: Path, found: str, pinned: str | None, sidecar: Sidecar | None
) -> None:
    if pinned is not None:
        if found == pinned:
            return
        if sidecar is not None and found == sidecar.sha256:
            raise ImageError(
                f"{_differs(pin, str(path), pinned, found)}\nIt was made here, of the image that "
                f"is pinned, but by {sidecar.tool}, and another version makes other bytes. Copy "
                "the pinned file here, or pin this one: "
                f"python -m launcher image pin {pin.name} --{path.suffix[1:]}"
            )
        raise ImageError(f"{_differs(pin, str(path), pinned, found)}\n{_remedy(pin, path)}")
    if sidecar is None:
        raise ImageError(
            f"the image file {path} cannot be verified: the lock file has no checksum of it, and "
            f"{sidecar_path(path).name}, which is written when a file is complete, is missing. "
            f"{_remedy(pin, path)}"
        )
    suspicion = distrust(path.parent)
    if suspicion is not None:
        raise ImageError(
            f"the image file {path} cannot be verified: the lock file has no checksum of it, and "
            f"its folder proves nothing, since {suspicion}. Use a folder of your own "
            "(image_cache=DIR), or pin the file where it was made: "
            f"python -m launcher image pin {pin.name} --{path.suffix[1:]}"
        )
    if found != sidecar.sha256:
        told = _differs(pin, str(path), sidecar.sha256, found)
        raise ImageError(f"{told}\n{_remedy(pin, path)}")


def _checked_source(pin: ImagePin, path: Path, sidecar: Sidecar | None) -> str | None:
    """Return the digest of the image that a file was made of, None where nobody knows."""
    pinned = [each for each in (pin.digest, pin.image_id) if each is not None]
    if sidecar is None:
        return next(iter(pinned), None)
    if pin.unpinned or not pinned:
        return sidecar.source if is_digest(sidecar.source) else None
    if sidecar.source not in pinned:
        told = _differs(pin, f"what {path} was made of", pinned[0], sidecar.source)
        raise ImageError(f"{told}\n{_remedy(pin, path)}")
    return sidecar.source


def _differs(pin: ImagePin, what: str, pinned: str, found: str) -> str:
    return (
        f"the image '{pin.name}' is not the one that is pinned ({what}):\n"
        f"  pinned  {pinned}\n"
        f"  found   {found}"
    )


def _remedy(pin: ImagePin, path: Path) -> str:
    if own_file(pin, ImageFormat.SIF) == path or own_file(pin, ImageFormat.SQSH) == path:
        return f"If you trust it as it is, ask for it with its checksum: {path}@sha256:…"
    runtime = "apptainer" if path.suffix == ".sif" else "enroot"
    return (
        "It was damaged or altered, or never completed. Remove it and have it made anew:\n"
        f"  {shlex.join(['rm', str(path), str(sidecar_path(path))])}\n"
        f"  {pull_command(pin, runtime, path.parent)}"
    )
