"""Images made here and kept in the registry on loopback, each found again by its tag."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from docker_host import REGISTRY
from state import RehearsalError

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def pinned(name: str, tag: str) -> str | None:
    """Return ``registry/name@sha256:…`` of what the registry has by this tag; None for nothing."""
    url = f"http://{REGISTRY}/v2/{name}/manifests/{tag}"
    request = urllib.request.Request(url, headers={"Accept": MANIFEST}, method="HEAD")
    # No proxy: loopback is not to be reached by one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return f"{REGISTRY}/{name}@{response.headers['Docker-Content-Digest']}"
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise RehearsalError(f"the registry at {REGISTRY} answers {error}") from error
    except OSError as error:
        raise RehearsalError(
            f"no registry answers at {REGISTRY} ({error}); `make cluster-up` starts one"
        ) from error


def make_image(name: str, tag: str, root_archive: Sequence[str], changes: Sequence[str]) -> str:
    """Import the tar archive that a command writes to its standard output, push it, and pin it.

    Args:
        name: repository in the registry.
        tag: the tag to find it again by.
        root_archive: command that writes the root file system.
        changes: instructions of a Dockerfile (``ENV …``, ``CMD …``) for the image's configuration.
    """
    reference = f"{REGISTRY}/{name}:{tag}"
    options = [word for change in changes for word in ("--change", change)]
    with subprocess.Popen(root_archive, stdout=subprocess.PIPE) as archive:
        imported = ["docker", "import", *options, "-", reference]
        run(imported, stdin=archive.stdout)
    if archive.returncode != 0:
        raise RehearsalError(f"{root_archive[0]} failed with exit status {archive.returncode}")
    run(["docker", "push", "--quiet", reference])
    reference_by_digest = pinned(name, tag)
    if reference_by_digest is None:
        raise RehearsalError(f"{reference} was pushed, but the registry does not have it")
    return reference_by_digest


def run(command: Sequence[str], stdin: IO[bytes] | None = None, folder: Path | None = None) -> str:
    """Run a command whose errors are of interest only when it fails; return its output."""
    done = subprocess.run(command, stdin=stdin, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RehearsalError(f"{' '.join(command[:2])} failed: {done.stderr.strip()}")
    return done.stdout
