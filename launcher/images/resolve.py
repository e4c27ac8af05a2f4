"""What was asked for as an image, turned into a pin: one image, and never a tag."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import ImageError, did_you_mean
from launcher.images.files import sha256_of
from launcher.images.lock import LockEntry, read_lock
from launcher.images.pin import ImagePin
from launcher.images.reference import digest_problem, is_digest, parse_reference
from launcher.images.source import available, containers_dir

_FILES = (".sif", ".sqsh")


def resolve_pin(asked: str, lock_file: Path, *, allow_unpinned: bool = False) -> ImagePin:
    """Return the one image that was asked for.

    Args:
        asked: a name in the lock file; ``REPOSITORY@sha256:…``; ``sha256:…`` of an image in a local
            store; or a ``.sif`` or ``.sqsh`` file, of which the lock file or ``PATH@sha256:…`` has
            the checksum.
        lock_file: the image lock file.
        allow_unpinned: take a tag as well.

    Raises:
        ImageError: it is not pinned, or cannot be the name of an image; the message says what to
            type.
    """
    entries = read_lock(lock_file)
    if asked in entries:
        return entries[asked].pin(asked)
    path, at, digest = asked.partition("@")
    if path.endswith(_FILES):
        return _file(Path(path), digest if at else None, entries, lock_file)
    if is_digest(asked):
        pin = _entry_like(entries, asked, image_id=asked)
        return pin or ImagePin(asked, image_id=asked)
    _refuse_unknown_name(asked, entries, lock_file)
    reference = parse_reference(asked)
    if reference.digest is not None:
        pin = _entry_like(entries, asked, digest=reference.digest)
        pin = pin or ImagePin(asked, digest=reference.digest)
        return dataclasses.replace(pin, repository=reference.repository)
    if allow_unpinned:
        return ImagePin(asked, repository=str(reference), unpinned=True)
    raise ImageError(
        f"the image '{asked}' is named by a tag, which may be another image tomorrow or on the "
        "next node. Pin it: python -m launcher image pin NAME "
        f"{asked}, and ask for NAME. Or add --allow-unpinned, which every record will show."
    )


def _refuse_unknown_name(asked: str, entries: Mapping[str, LockEntry], lock_file: Path) -> None:
    """Refuse what looks like a name of the lock file, but is none."""
    folder = containers_dir(lock_file)
    buildable = available(folder)
    if asked in buildable:
        raise ImageError(
            f"the image '{asked}' is not pinned in {lock_file}. Build it: python -m launcher image "
            f"build {asked}; then pin it: python -m launcher image pin {asked}"
        )
    if not {"/", ":", "@"}.isdisjoint(asked):
        return
    hint = did_you_mean(asked, sorted({*entries, *buildable}))
    known = ", ".join(sorted(entries)) or "none yet"
    raise ImageError(
        f"there is no image '{asked}' in {lock_file}.{hint} Pinned there: {known}. Any other image "
        "is named by its digest, REPOSITORY@sha256:…"
    )


def _entry_like(entries: Mapping[str, LockEntry], asked: str, **known: str) -> ImagePin | None:
    """Return the pin of the entry that has these values, for the rest of what it knows."""
    for entry in entries.values():
        if all(getattr(entry, key) == value for key, value in known.items()):
            return entry.pin(asked)
    return None


def _file(
    path: Path, digest: str | None, entries: Mapping[str, LockEntry], lock_file: Path
) -> ImagePin:
    path = path.expanduser().absolute()
    field = "sif_sha256" if path.suffix == ".sif" else "sqsh_sha256"
    if digest is not None and not is_digest(digest):
        raise ImageError(f"'{path}@{digest}': {digest_problem(digest)}")
    try:
        found = digest or sha256_of(path)
    except OSError as error:
        raise ImageError(f"the image file {path} cannot be read: {error.strerror}") from error
    pin = _entry_like(entries, str(path), **{field: found})
    if pin is not None:
        return pin
    if digest is None:
        raise ImageError(
            f"the image file {path} has the checksum {found}, which nothing in {lock_file} pins. "
            f"If that is what you want, ask for it with its checksum: {path}@{found}"
        )
    return ImagePin(str(path), **{field: digest})  # type: ignore[arg-type]  # one of two names
