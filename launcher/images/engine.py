"""What is asked of Docker or Podman, whose stores hold images.

Docker is spoken to through its SDK, Podman through its command line; both are loaded only when they
are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from launcher.errors import ImageError
from launcher.images.reference import parse_reference, same_repository

ENGINES = ("docker", "podman")
# Takes the lines that say how something that takes long goes on.
Say = Callable[[str], None]


@dataclass(frozen=True)
class LocalImage:
    """An image in the store of an engine.

    Attributes:
        image_id: what the store names it by: the digest of its configuration, or, in Docker's
            containerd store, of its manifest.
        repo_digests: ``repository@sha256:…`` of each manifest by which it was pulled or pushed.
        environment: variables that it sets.
        labels: what was written on it when it was built.
        created: when, in UTC, as ISO 8601 has it.
        size_bytes: of its layers, unpacked.
    """

    image_id: str
    repo_digests: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    size_bytes: int = 0

    def digests_in(self, repository: str) -> tuple[str, ...]:
        """Return the digests of its manifests in this repository; none where it is not known."""
        references = map(parse_reference, self.repo_digests)
        return tuple(
            reference.digest
            for reference in references
            if reference.digest and same_repository(reference.repository, repository)
        )


@dataclass(frozen=True)
class BuildRequest:
    """One build.

    Attributes:
        files: name in the build's context to the file; ``Dockerfile`` is one of them.
        arguments: those of the Dockerfile.
        labels: to be written on the image.
        tag: by which this machine finds what it built last.
        pull: ask the registry for the base even if it is here.
    """

    files: Mapping[str, Path]
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    tag: str
    pull: bool = False


class Engine(Protocol):
    """Docker or Podman. What it cannot do is an :class:`ImageError` with its own words in it."""

    name: str

    def version(self) -> str:
        """Return name and version, such as ``docker 28.2.2``."""

    def inspect(self, reference: str) -> LocalImage | None:
        """Return an image of the local store, None when it has none of that name."""

    def pull(self, reference: str, say: Say) -> None:
        """Fetch an image from its registry, by digest or by tag."""

    def push(self, reference: str, say: Say) -> str:
        """Send a tagged image to its registry; return the digest of its manifest."""

    def tag(self, image_id: str, reference: str) -> None:
        """Give an image of the local store a name."""

    def remove(self, reference: str) -> None:
        """Take a name from the local store, and the image with its last name."""

    def build(self, request: BuildRequest, say: Say) -> str:
        """Build an image on the host's network; return its id."""

    def save(self, reference: str, archive: Path) -> None:
        """Write an image as a ``docker-archive``, layers and configuration."""

    def export(self, reference: str, output: IO[bytes]) -> None:
        """Write the root file system of an image as a tar archive."""


def load_engine(
    name: str = "auto", *, executable: str | None = None, options: Sequence[str] = ()
) -> Engine:
    """Return an engine that works on this machine.

    Args:
        name: ``docker``, ``podman``, or ``auto`` for the first of them that answers.
        executable: Podman's, where it is not ``podman``.
        options: those that stand before the subcommand on the client's command line.

    Raises:
        ImageError: there is none.
    """
    if name not in (*ENGINES, "auto"):
        raise ImageError(f"there is no engine '{name}'. Use one of: {', '.join(ENGINES)}, auto.")
    problems = []
    for each in ENGINES if name == "auto" else (name,):
        try:
            if each == "docker":
                from launcher.images.docker_engine import DockerEngine

                return DockerEngine(options)
            from launcher.images.podman_engine import PodmanEngine

            return PodmanEngine(executable or "podman", options)
        except ImageError as error:
            problems.append(str(error))
    raise ImageError(
        f"{'; '.join(problems)}. Start Docker (or name its daemon: DOCKER_HOST), or install Podman."
    )


def split_environment(variables: Sequence[str]) -> dict[str, str]:
    """Return ``NAME=value`` lines of an image's configuration as a mapping."""
    return {name: value for name, _, value in (line.partition("=") for line in variables)}
