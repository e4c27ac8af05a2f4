"""The folder of converted images: SIF and squashfs files by the digest of what they are made of.

Beside each file stands a sidecar, ``….json``, that says what it was made of and what its bytes
were. Whoever can write both can pass off anything: a folder that others may write to counts only
for files whose checksum the lock file pins.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images.files import locked, partial_name, partials_of, sha256_of, write_whole
from launcher.images.pin import ImagePin

_SCHEMA = 1
_FORMATS = {ImageFormat.SIF: ".sif", ImageFormat.SQSH: ".sqsh"}


@dataclass(frozen=True)
class Sidecar:
    """What is known of a converted file.

    Attributes:
        source: digest of the image that it was made of: the manifest's, or the image id.
        reference: what was converted, as it was named.
        tool: what converted it, with version.
        environment: variables that the image sets.
        sha256: of the file, ``sha256:…``.
        size_bytes: of the file.
        made: when, in UTC.
    """

    source: str
    reference: str
    tool: str
    environment: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    size_bytes: int = 0
    made: str = ""


@dataclass(frozen=True)
class Converted:
    """What a converter tells of the file that it wrote; the fields are those of a sidecar."""

    source: str
    reference: str
    tool: str
    environment: Mapping[str, str] = field(default_factory=dict)


# Writes the file at the given path, which does not exist yet.
Converter = Callable[[Path], Converted]


def default_cache_dir() -> Path:
    """Return the folder of converted images where no setting names another."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base, "launcher", "images").expanduser()


def pull_command(pin: ImagePin, runtime: str, cache_dir: Path) -> str:
    """Return what to type to have an image in the form that a runtime takes."""
    cache = [] if cache_dir == default_cache_dir() else ["--cache", str(cache_dir)]
    words = ["python", "-m", "launcher", "image", "pull", pin.name, "--for", runtime, *cache]
    return shlex.join(words)


def suffix_of(image_format: ImageFormat) -> str:
    """Return how the files of a format end."""
    return _FORMATS[image_format]


def checksum_of(pin: ImagePin, image_format: ImageFormat) -> str | None:
    """Return the checksum that is pinned for the file of that format, if one is."""
    return pin.sif_sha256 if image_format is ImageFormat.SIF else pin.sqsh_sha256


def own_file(pin: ImagePin, image_format: ImageFormat) -> Path | None:
    """Return the file that was asked for by its path, if that is how the image was asked for."""
    path = Path(pin.name)
    is_file = path.is_absolute() and path.suffix == suffix_of(image_format)
    return path if is_file else None


def cached_path(pin: ImagePin, image_format: ImageFormat, cache_dir: Path) -> Path:
    """Return where the converted file of an image belongs. Pure."""
    digest = pin.digest or pin.image_id or checksum_of(pin, image_format)
    if digest is None:  # unpinned: by its name
        import hashlib

        name = hashlib.sha256(pin.asked.encode()).hexdigest()[:16]
        return cache_dir / f"unpinned-{name}{suffix_of(image_format)}"
    return cache_dir / (digest.replace(":", "-") + suffix_of(image_format))


def sidecar_path(path: Path) -> Path:
    """Return the name of a file's sidecar."""
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> Sidecar | None:
    """Return what is known of a converted file, None when it has no sidecar.

    Raises:
        ImageError: the sidecar is damaged.
    """
    file = sidecar_path(path)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.pop("schema") != _SCHEMA:
            raise ValueError("it is of another version")
        return Sidecar(**record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ImageError(
            f"{file} cannot be read: {error}. Remove it and {path.name} to have both made anew."
        ) from error


def open_folder(cache_dir: Path) -> None:
    """Make the folder, for its owner alone, where it does not exist.

    Raises:
        ImageError: it cannot be made.
    """
    try:
        cache_dir.parent.mkdir(parents=True, exist_ok=True)
        cache_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"the folder of converted images, {cache_dir}, cannot be made: {error.strerror}. "
            "Name another one: image_cache=DIR"
        ) from error


def distrust(folder: Path) -> str | None:
    """Return why the sidecars in a folder prove nothing; None when only its owner writes there."""
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to another user (id {status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def make_once(path: Path, convert: Converter, *, is_current: Callable[[], bool]) -> None:
    """Have a file made unless it is there; of several processes one does it, the others wait.

    The file is written under another name and moved into place whole, its sidecar after it: a file
    without one was never completed.

    Args:
        path: of the file.
        convert: writes it.
        is_current: tells whether it is there; asked again once the lock is held.

    Raises:
        ImageError: the folder cannot be written, or the conversion failed.
    """
    if is_current():
        return
    open_folder(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        lock_path.touch()
    except OSError as error:
        raise ImageError(f"{path.parent} cannot be written: {error.strerror}") from error
    with locked(lock_path) as alone:
        if is_current():
            return
        if alone:
            for partial in partials_of(path):  # of one that was killed
                with suppress(OSError):
                    partial.unlink()
        _make(path, convert)


def _make(path: Path, convert: Converter) -> None:
    temporary = partial_name(path)
    try:
        converted = convert(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        record: dict[str, Any] = {
            "schema": _SCHEMA,
            **asdict(converted),
            "sha256": sha256_of(temporary),
            "size_bytes": temporary.stat().st_size,
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        sidecar_path(path).unlink(missing_ok=True)
        temporary.replace(path)
        write_whole(sidecar_path(path), json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
