"""What the lock file is to say of an image: found once, now, and then fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images.build import latest_build, lock_entry
from launcher.images.engine import Engine, LocalImage, Say, load_engine
from launcher.images.lock import LockEntry
from launcher.images.reference import Reference, is_digest, parse_reference
from launcher.images.verify import NamedRuntime, prepare_image

_TAKERS = {
    ImageFormat.SIF: NamedRuntime("apptainer", ImageFormat.SIF),
    ImageFormat.SQSH: NamedRuntime("enroot", ImageFormat.SQSH),
}


def entry_for(
    name: str,
    reference: str | None,
    engine_name: str,
    say: Say,
    *,
    repository: str | None = None,
) -> LockEntry:
    """Return the entry for an image as it is now.

    Args:
        name: what it is to be called.
        reference: an image of a registry or of the local store; None for the one of that name that
            was built last.
        engine_name: ``docker``, ``podman`` or ``auto``.
        say: takes the lines that say how it goes on.
        repository: which is meant where it was pushed to several, and none is named.

    Raises:
        ImageError: it cannot be found, or its digest cannot be told.
    """
    if reference is None:
        engine = load_engine(engine_name)
        built = latest_build(engine, name)
        return lock_entry(built, _where_it_is(engine, name, built, repository))
    if is_digest(reference):
        local = load_engine(engine_name).inspect(reference)
        if local is None:
            raise ImageError(f"there is no image {reference} on this machine to pin as {name}")
        return lock_entry(local, None)
    wanted = parse_reference(reference)
    try:
        engine = load_engine(engine_name)
    except ImageError as error:
        if wanted.digest is not None:  # an engine would add no more than the image's id
            return LockEntry(repository=wanted.repository, digest=wanted.digest)
        raise ImageError(
            f"{reference} cannot be looked up: {error} Or name it by digest: "
            f"{wanted.repository}@sha256:…"
        ) from error
    if wanted.digest is None:
        engine.pull(reference, say)  # what the registry has by that name now
    elif engine.inspect(reference) is None:
        engine.pull(reference, say)
    image = engine.inspect(reference)
    if image is None:
        raise ImageError(f"{engine.name} pulled {reference} and does not have it")
    if wanted.digest is None:
        wanted = _confirmed(engine, name, image, wanted.repository)
    return lock_entry(image, wanted)


def with_checksums(
    name: str,
    entry: LockEntry,
    previous: LockEntry | None,
    formats: Sequence[ImageFormat],
    cache_dir: Path,
    say: Say,
) -> LockEntry:
    """Return the entry with the checksums of converted files.

    Those that are pinned already stay if the image is the same one; those of ``formats`` are made.

    Raises:
        ImageError: a file cannot be made.
    """
    if previous is not None and _same_image(entry, previous):
        entry = dataclasses.replace(
            entry, sif_sha256=previous.sif_sha256, sqsh_sha256=previous.sqsh_sha256
        )
    for image_format in formats:
        # Made of the image, not held against what was pinned before.
        fresh = dataclasses.replace(entry, sif_sha256=None, sqsh_sha256=None)
        file = prepare_image(fresh.pin(name), _TAKERS[image_format], cache_dir, say=say)
        if image_format is ImageFormat.SIF:
            entry = dataclasses.replace(entry, sif_sha256=file.file_sha256)
        else:
            entry = dataclasses.replace(entry, sqsh_sha256=file.file_sha256)
    return entry


def _where_it_is(
    engine: Engine, name: str, image: LocalImage, preferred: str | None
) -> Reference | None:
    """Return the reference by which a registry has an image; None if it was never pushed.

    Raises:
        ImageError: it was pushed to several repositories, or the registry does not have it now.
    """
    repositories = {parse_reference(each).repository for each in image.repo_digests}
    if not repositories:
        return None
    if preferred in repositories:
        repositories = {preferred}
    if len(repositories) > 1:
        known = "\n  ".join(sorted(image.repo_digests))
        raise ImageError(
            f"the image '{name}', {image.image_id}, is known in several repositories. Say which: "
            f"python -m launcher image pin {name} REFERENCE\n  {known}"
        )
    return _confirmed(engine, name, image, repositories.pop())


def _confirmed(engine: Engine, name: str, image: LocalImage, repository: str) -> Reference:
    """Return the reference by digest that the registry has, out of those that the engine tells.

    Podman also tells the digest of what it would push, which compressing changes (4.3).
    """
    problem = f"{engine.name} tells no digest of it in {repository}"
    for digest in image.digests_in(repository):
        reference = Reference(repository, digest=digest)
        try:
            engine.pull(str(reference), lambda line: None)
        except ImageError as error:
            problem = str(error)
        else:
            return reference
    raise ImageError(
        f"{problem}\nThe image '{name}' is on this machine, and its registry does not have it. "
        f"Push it (python -m launcher image push {name} --to {repository}), or pin it for this "
        f"machine alone: python -m launcher image pin {name} {image.image_id}"
    )


def _same_image(one: LockEntry, other: LockEntry) -> bool:
    return (one.digest, one.image_id) == (other.digest, other.image_id)
