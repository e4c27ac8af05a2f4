"""Folders of a container that are the image's own, and so are never the host's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from launcher.containers.base import INSIDE


def _paths(*names: str) -> tuple[Path, ...]:
    return tuple(map(Path, names))


_SYSTEM = (
    *_paths("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/boot"),
    *_paths("/proc", "/sys", "/dev", "/run", "/var/run"),
    INSIDE,
)
_REMOVABLE = Path("/run/media")  # where desktops mount what a person has plugged in
_SCRATCH = _paths("/tmp", "/var/tmp")
# As a whole they would hide what images have there; folders below them may be asked for by name.
_SHARED = _paths("/opt", "/var")
# A path below these that merely shows up in a setting is software or state more often than data.
_SOFTWARE = (
    *_paths("/opt", "/nix", "/snap"),
    *_paths("/var/lib", "/var/cache", "/var/log", "/var/spool", "/var/lock"),
)
_TOO_MUCH = _paths("/home", "/mnt", "/media", "/srv")


def refusal(path: Path) -> str | None:
    """Say why a path cannot be mounted at its own place; None when it can."""
    if path == Path("/"):
        return "it would take the place of the image"
    if not _is_below(path, (_REMOVABLE,)) and _is_below(path, _SYSTEM):
        system = next(each for each in _SYSTEM if path.is_relative_to(each))
        return f"{system} is the image's own"
    if path in _SCRATCH:
        return f"stages have a {path} of their own; name a folder below it"
    if path in _SHARED:
        return f"images have software in {path}; name a folder below it"
    return None


def is_software(path: Path) -> bool:
    """Tell whether a path lies where a host has software, so that it has to be asked for."""
    return _is_below(path, _SOFTWARE)


def is_too_much(path: Path, home: Path) -> bool:
    """Tell whether a folder holds so much that it has to be asked for: a home and all above it."""
    return path in _TOO_MUCH or home.is_relative_to(path)


def any_refused(paths: Iterable[Path]) -> bool:
    """Tell whether one of these names of a file cannot be mounted."""
    return any(refusal(path) is not None for path in paths)


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    # Path.is_relative_to takes ten times as long, and links in a corpus come in thousands.
    return f"{path}/".startswith(tuple(f"{each}/" for each in folders))
