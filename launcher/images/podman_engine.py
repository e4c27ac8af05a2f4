"""Podman, through its command line: its API service seldom runs on a machine of several users."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from launcher.errors import ImageError
from launcher.images.engine import BuildRequest, LocalImage, Say, split_environment
from launcher.images.reference import is_digest, is_loopback, parse_reference

_ERROR_LINES = 6


class PodmanEngine:
    """The Podman of this user."""

    name = "podman"

    def __init__(self, executable: str = "podman", options: Sequence[str] = ()) -> None:
        found = shutil.which(executable)
        if found is None:
            raise ImageError(f"there is no program {executable}")
        self._podman = [found, *options]

    def version(self) -> str:
        """Return name and version."""
        return self._output("Podman does not tell its version", "--version").replace("version ", "")

    def inspect(self, reference: str) -> LocalImage | None:
        """Return an image of the local store, None when it has none of that name."""
        found = self._run("image", "exists", reference)
        if found.returncode == 1:
            return None
        what = f"Podman cannot look up {reference}"
        shown = self._output(what, "image", "inspect", "--format", "json", reference)
        return _local_image(json.loads(shown)[0])

    def pull(self, reference: str, say: Say) -> None:
        """Fetch an image from its registry."""
        arguments = ["pull", *_tls(reference), reference]
        self._follow(f"{reference} could not be pulled", arguments, say)

    def push(self, reference: str, say: Say) -> str:
        """Send a tagged image to its registry; return the digest of its manifest."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "digest"
            arguments = ["push", *_tls(reference), "--digestfile", str(file), reference]
            self._follow(f"{reference} could not be pushed", arguments, say)
            digest = file.read_text().strip()
        # Compressing the layers gave it another digest than the store knows it by (4.3). Fetched by
        # that one, which takes no time since the layers are here, it is known by it.
        repository = parse_reference(reference).repository
        self._output(
            f"{reference} was pushed, but is not there",
            "pull",
            *_tls(reference),
            f"{repository}@{digest}",
        )
        return digest

    def tag(self, image_id: str, reference: str) -> None:
        """Give an image of the local store a name."""
        self._output(f"{image_id} cannot be called {reference}", "tag", image_id, reference)

    def remove(self, reference: str) -> None:
        """Take a name from the local store, and the image with its last name."""
        if self.inspect(reference) is not None:
            self._output(f"{reference} could not be removed", "rmi", reference)

    def build(self, request: BuildRequest, say: Say) -> str:
        """Build on the host's network; layers of an earlier build are used again."""
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder) / "context"
            context.mkdir()
            for name, path in request.files.items():
                shutil.copyfile(path, context / name)
            id_file = Path(folder) / "id"
            arguments = ["build", "--layers", "--network", "host", "--iidfile", str(id_file)]
            arguments += ["--pull-always"] if request.pull else []
            for key, value in sorted(request.arguments.items()):
                arguments += ["--build-arg", f"{key}={value}"]
            for key, value in sorted(request.labels.items()):
                arguments += ["--label", f"{key}={value}"]
            arguments += ["--tag", request.tag, str(context)]
            self._follow(f"{request.tag} could not be built", arguments, say)
            return _with_algorithm(id_file.read_text().strip())

    def save(self, reference: str, archive: Path) -> None:
        """Write an image as a ``docker-archive``."""
        arguments = ["save", "--format", "docker-archive", "--output", str(archive), reference]
        self._output(f"{reference} could not be saved", *arguments)

    def export(self, reference: str, output: IO[bytes]) -> None:
        """Write the root file system of an image, that of a container which is never started."""
        what = f"{reference} could not be exported"
        container = self._output(what, "create", reference, "true")
        try:
            with self._errors(what):
                done = subprocess.run(
                    [*self._podman, "export", container],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.PIPE,
                )
            _check(what, done.returncode, done.stderr.decode(errors="replace").splitlines())
        finally:
            self._run("rm", "--force", container)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self._errors(f"podman {arguments[0]} cannot be run"):
            return subprocess.run(
                [*self._podman, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )

    def _output(self, what: str, *arguments: str) -> str:
        done = self._run(*arguments)
        _check(what, done.returncode, done.stderr.splitlines())
        return done.stdout.strip()

    def _follow(self, what: str, arguments: Sequence[str], say: Say) -> None:
        lines = []
        with (
            self._errors(what),
            subprocess.Popen(
                [*self._podman, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip():
                    lines.append(line.rstrip())
                    say(lines[-1])
        _check(what, process.returncode, lines)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ImageError(f"{what}: {error}") from error


def _check(what: str, status: int, lines: Sequence[str]) -> None:
    if status != 0:
        said = "\n  ".join(lines[-_ERROR_LINES:]) or f"exit status {status}"
        raise ImageError(f"{what}: podman says:\n  {said}")


def _tls(reference: str) -> list[str]:
    """Return the option by which Podman treats a registry on loopback as Docker does."""
    loopback = is_loopback(parse_reference(reference).repository)
    return ["--tls-verify=false"] if loopback else []


def _with_algorithm(image_id: str) -> str:
    return image_id if is_digest(image_id) else f"sha256:{image_id}"


def _local_image(shown: Mapping[str, Any]) -> LocalImage:
    config = shown.get("Config") or {}
    return LocalImage(
        image_id=_with_algorithm(shown["Id"]),
        # Podman gives every name a digest, also one that was never pushed anywhere: localhost/…
        repo_digests=tuple(
            name for name in shown.get("RepoDigests") or () if not name.startswith("localhost/")
        ),
        environment=split_environment(config.get("Env") or ()),
        labels=shown.get("Labels") or {},
        created=shown.get("Created") or "",
        size_bytes=int(shown.get("Size") or 0),
    )
