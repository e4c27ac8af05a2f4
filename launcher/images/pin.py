"""An image by digest, and the file that pins names to digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ImagePin:
    """One image, named so that it cannot become another one.

    Attributes:
        name: what the user calls it: an entry of the lock file, or the reference itself.
        repository: registry and repository without tag or digest; None for an image that was never
            pushed.
        digest: of the manifest in the registry, ``sha256:…``; None as above.
        image_id: of the image's configuration, which a local store names it by, ``sha256:…``.
        sif_sha256: of the SIF file made of it.
        sqsh_sha256: of the squashfs file made of it.
        base: reference of the base image, with its digest.
        inputs: file name to SHA-256 of what it was built from.
        unpinned: it was asked for by a tag with ``--allow-unpinned``; ``repository`` then ends in
            the tag.
    """

    name: str
    repository: str | None = None
    digest: str | None = None
    image_id: str | None = None
    sif_sha256: str | None = None
    sqsh_sha256: str | None = None
    base: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    unpinned: bool = False

    @property
    def asked(self) -> str:
        """What is asked for, as records and messages give it."""
        if self.repository and self.digest:
            return f"{self.repository}@{self.digest}"
        return self.image_id or self.sif_sha256 or self.repository or self.name


@dataclass(frozen=True)
class VerifiedImage:
    """An image as it was found on this machine, and found to be the one that is pinned.

    Attributes:
        argument: what ``ContainerRun.image`` is set to.
        asked: the digest that was asked for.
        verified: the digest that was found; for an unpinned image, what it happens to be.
        environment: variables that the image sets, for runtimes that do not read them themselves.
        path: of the file, for SIF and squashfs.
        file_sha256: of that file, which is another digest than that of the image it was made of.
    """

    argument: str
    asked: str
    verified: str
    environment: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    file_sha256: str | None = None
