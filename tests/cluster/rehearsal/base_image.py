"""Make a stand-in for a base image where no public registry can be reached, and print its digest.

It is Debian 12 with Python, made from Debian's packages, and with the host's pip settings in it
(``host_pip.py``), so that a Dockerfile needs nothing of this host but its ``BASE`` argument::

    docker build --network host --build-arg BASE="$(python3 tests/cluster/rehearsal/base_image.py)"

The image stays in the registry of the rehearsal cluster, and is made anew when the settings or what
they name have changed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import host_pip
from images import make_image, pinned
from state import RehearsalError

NAME = "launcher-base"
SUITE = "bookworm"
PACKAGES = ["python3", "python3-venv", "ca-certificates"]
# Counted up when the image is made in another way.
RECIPE = 2


def main() -> int:
    """Print the image's reference, and make the image before that if it is missing."""
    try:
        settings = host_pip.settings()
        tag = f"{SUITE}-{key(settings)}"
        print(pinned(NAME, tag) or make(tag, settings))
    except RehearsalError as error:
        print(f"base image: {error}", file=sys.stderr)
        return 1
    return 0


def key(settings: dict[str, str]) -> str:
    """Return a digest of all that the image is made from, Debian's packages apart."""
    digest = hashlib.sha256(repr((RECIPE, SUITE, PACKAGES, sorted(settings.items()))).encode())
    bundle = host_pip.certificates(settings, os.environ)
    if bundle is not None:
        digest.update(bundle.read_bytes())
    for folder in host_pip.wheel_folders(settings):
        for path in sorted(folder.glob("*")):
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def make(tag: str, settings: dict[str, str]) -> str:
    """Make the image, push it, and return its reference by digest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # it becomes the mode of the image's root
        host_pip.lay_out(settings, Path(folder))
        archive = [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            *(f"--customize-hook=sync-in {folder} /", SUITE, "-"),
        ]
        return make_image(NAME, tag, archive, ["ENV LANG=C.UTF-8", 'CMD ["bash"]'])


if __name__ == "__main__":
    sys.exit(main())
