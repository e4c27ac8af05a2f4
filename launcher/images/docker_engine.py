"""Docker, through its SDK. Nothing but ``load_engine`` imports this: the SDK takes its time."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from launcher.errors import ImageError
from launcher.images.engine import BuildRequest, LocalImage, Say, split_environment
from launcher.images.reference import parse_reference

# The daemon says nothing for as long as one step of a build takes, or a layer to arrive.
_TIMEOUT_S = 3600
_CONNECT_TIMEOUT_S = 10
# What is worth a line; the rest is progress bars.
_LANDMARKS = ("Pull complete", "Pushed", "Layer already exists", "Already exists", "Mounted from")


class DockerEngine:
    """The Docker daemon that the command line's client would use.

    That is the one of ``--context`` or ``--host`` among its global options, of DOCKER_HOST, or of
    the current context, in this order.
    """

    name = "docker"

    def __init__(self, options: Sequence[str] = ()) -> None:
        connection = _connection(options)
        host = connection.get("base_url") or "unix:///var/run/docker.sock"
        try:
            _reach(host)
            # The constructor asks the daemon for its version.
            self._client = docker.APIClient(
                **connection, version="auto", timeout=_CONNECT_TIMEOUT_S
            )
        except PermissionError as error:
            raise ImageError(
                f"you may not use the Docker daemon at {host}: ask to be put into its group"
            ) from error
        except (DockerException, requests.RequestException, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"no Docker daemon answers at {host}: {reason}") from error
        self._client.timeout = _TIMEOUT_S
        weakref.finalize(self, self._client.close)

    def version(self) -> str:
        """Return name and version of the daemon."""
        with _errors("Docker does not tell its version"):
            return f"docker {self._client.version()['Version']}"

    def inspect(self, reference: str) -> LocalImage | None:
        """Return an image of the local store, None when it has none of that name."""
        with _errors(f"Docker cannot look up {reference}"):
            try:
                return _local_image(self._client.inspect_image(reference))
            except ImageNotFound:
                return None

    def pull(self, reference: str, say: Say) -> None:
        """Fetch an image from its registry."""
        wanted = parse_reference(reference)
        what = f"{reference} could not be pulled"
        with _errors(what):
            tag = wanted.digest or wanted.tag or "latest"
            stream = self._client.pull(wanted.repository, tag=tag, stream=True, decode=True)
            _follow(what, stream, say)

    def push(self, reference: str, say: Say) -> str:
        """Send a tagged image to its registry; return the digest of its manifest."""
        wanted = parse_reference(reference)
        what = f"{reference} could not be pushed"
        with _errors(what):
            tag = wanted.tag or "latest"
            stream = self._client.push(wanted.repository, tag=tag, stream=True, decode=True)
            for event in _follow(what, stream, say):
                if "Digest" in event:
                    return str(event["Digest"])
        raise ImageError(f"{what}: Docker did not tell its digest")

    def tag(self, image_id: str, reference: str) -> None:
        """Give an image of the local store a name."""
        wanted = parse_reference(reference)
        with _errors(f"{image_id} cannot be called {reference}"):
            self._client.tag(image_id, wanted.repository, wanted.tag)

    def remove(self, reference: str) -> None:
        """Take a name from the local store, and the image with its last name."""
        with _errors(f"{reference} could not be removed"):
            try:
                self._client.remove_image(reference)
            except ImageNotFound:
                return

    def build(self, request: BuildRequest, say: Say) -> str:
        """Build with the daemon's own builder: BuildKit, which it may not have, is not needed."""
        what = f"{request.tag} could not be built"
        with _errors(what):
            stream = self._client.build(
                fileobj=_context(request.files),
                custom_context=True,
                buildargs=dict(request.arguments),
                labels=dict(request.labels),
                tag=request.tag,
                pull=request.pull,
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
            )
            image_id = None
            for event in _follow(what, stream, say):
                image_id = event.get("ID", image_id)
        if image_id is None:
            raise ImageError(f"{what}: Docker did not tell its id")
        return str(image_id)

    def save(self, reference: str, archive: Path) -> None:
        """Write an image as a ``docker-archive``."""
        with _errors(f"{reference} could not be saved"), archive.open("wb") as file:
            for block in self._client.get_image(reference):
                file.write(block)

    def export(self, reference: str, output: IO[bytes]) -> None:
        """Write the root file system of an image, that of a container which is never started."""
        with _errors(f"{reference} could not be exported"):
            container = self._client.create_container(reference, command=["true"])["Id"]
            try:
                for block in self._client.export(container):
                    output.write(block)
            finally:
                self._client.remove_container(container, force=True)


def _connection(options: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of the SDK's client."""
    context, host = _option(options, "--context", "-c"), _option(options, "--host", "-H")
    if context is None:
        from_environment: dict[str, Any] = docker.utils.kwargs_from_env()
        if host is not None:
            from_environment["base_url"] = host
        if "base_url" in from_environment:
            return from_environment
    return _of_context(context or os.environ.get("DOCKER_CONTEXT"))


def _of_context(name: str | None) -> dict[str, Any]:
    """Return what a context of Docker's command line says; None is the current one."""
    try:
        if name is not None and ContextAPI.get_context(name) is None:
            raise ImageError(f"Docker has no context '{name}'; `docker context ls` shows them")
        arguments: dict[str, Any] = ContextAPI.kwargs_from_context(name)
    except (DockerException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ImageError(f"Docker's contexts cannot be read: {error!r}") from error
    return arguments


def _reach(host: str) -> None:
    """Try the daemon's socket: what the SDK makes of one that is not there is hard to read."""
    scheme, _, path = host.partition("://")
    if scheme in ("unix", "http+unix"):
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(_CONNECT_TIMEOUT_S)
            end.connect("/" + path.lstrip("/"))


def _option(options: Sequence[str], *names: str) -> str | None:
    """Return the value of an option, in either of the ways in which it can be written."""
    for number, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(options[number + 1 :]), None)
    return None


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn what the SDK raises into a message that begins with what was wanted."""
    try:
        yield
    except BrokenPipeError:  # of what an image is exported to, which says itself why it ended
        raise
    except NotFound as error:
        raise ImageError(f"{what}: {error.explanation}") from error
    except APIError as error:
        raise ImageError(f"{what}: {error.explanation or error}") from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise ImageError(f"{what}: {error}") from error


def _follow(what: str, stream: Any, say: Say) -> list[Mapping[str, Any]]:
    """Pass on what is worth a line; return what was told for programs (``aux``)."""
    told = []
    for event in stream:
        if "error" in event:
            raise ImageError(f"{what}: {event['error'].strip()}")
        if "aux" in event:
            told.append(event["aux"])
        for line in event.get("stream", "").splitlines():
            if line.strip():
                say(line.rstrip())
        if event.get("status") in _LANDMARKS:
            say(f"{event['id']}: {event['status']}")
    return told


def _context(files: Mapping[str, Path]) -> IO[bytes]:
    """Return the build's context as a tar archive that depends on nothing but what is in them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def _local_image(shown: Mapping[str, Any]) -> LocalImage:
    config = shown.get("Config") or {}
    return LocalImage(
        image_id=shown["Id"],
        repo_digests=tuple(shown.get("RepoDigests") or ()),
        environment=split_environment(config.get("Env") or ()),
        labels=config.get("Labels") or {},
        created=shown.get("Created") or "",
        size_bytes=int(shown.get("Size") or 0),
    )
