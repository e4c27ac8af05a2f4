"""Names of images: what is a digest, and what is a tag, which may be another image tomorrow.

The grammar is that of the OCI distribution specification: ``[host[:port]/]path[:tag][@digest]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from launcher.errors import ImageError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]+){3}|\[::1\])(?::[0-9]+)?")
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Reference:
    """An image of a registry.

    Attributes:
        repository: with its registry, as it was typed, without tag or digest.
        tag: what it was called by, if at all.
        digest: ``sha256:…`` of its manifest, if given; it counts, and a tag beside it does not.
    """

    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        if self.digest:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag or 'latest'}"


def parse_reference(text: str) -> Reference:
    """Take the name of an image apart.

    Raises:
        ImageError: it cannot be one.
    """
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise ImageError(f"'{text}': {digest_problem(digest)}")
    repository, tag = name, None
    head, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        repository, tag = head, last
        if not _TAG.fullmatch(last):
            raise ImageError(f"'{text}' is not the name of an image: '{last}' is no tag")
    host, path = _split_host(repository)
    if (host and not _HOST.fullmatch(host)) or not all(
        _COMPONENT.fullmatch(part) for part in path.split("/")
    ):
        raise ImageError(
            f"'{text}' is not the name of an image: '{repository}' is not [HOST[:PORT]/]NAME in "
            "small letters"
        )
    return Reference(repository, tag, digest or None)


def is_digest(text: str) -> bool:
    """Tell whether the text is ``sha256:`` and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def digest_problem(text: str) -> str:
    """Return what is wrong with what should be a digest."""
    return f"'{text}' is not a digest, which is sha256: and 64 of 0-9a-f"


def same_repository(one: str, other: str) -> bool:
    """Tell whether two repositories are one: ``python`` is ``docker.io/library/python``."""
    return _full_name(one) == _full_name(other)


def is_loopback(repository: str) -> bool:
    """Tell whether its registry is on this very machine, where clients do without TLS."""
    return _LOOPBACK.fullmatch(_split_host(repository)[0]) is not None


def _full_name(repository: str) -> str:
    host, path = _split_host(repository)
    if host and host not in _DOCKER_HUB:
        return f"{host}/{path}"
    return f"docker.io/{path if '/' in path else f'library/{path}'}"


def _split_host(repository: str) -> tuple[str, str]:
    first, slash, rest = repository.partition("/")
    if slash and (first == "localhost" or not {".", ":"}.isdisjoint(first)):
        return first, rest
    return "", repository
