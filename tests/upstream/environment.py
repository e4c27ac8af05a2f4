"""Make the environment that ``make test-upstream`` needs, or find it: upstream's ESPnet3.

It needs only the standard library. The environment holds PyPI's ``espnet`` with what its training
stages import, 6.3 GB, torch for CUDA above all; it is kept outside of the checkout.

- ``UPSTREAM_ENV`` names its folder; a folder of the user's cache when not set.
- ``PYTHON312`` names the Python 3.12 that it is made with; ``python3.12`` when not set.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "202611"
REQUIREMENT = f"espnet[train]=={VERSION}"
NEEDED_GB = 12  # installed, and the wheels while they are unpacked
TIMEOUT_S = 3600
# lightning belongs to `train`; espnet is installed last, so what it depends on is there as well.
_CHECK = (
    "import importlib.metadata as m; m.version('lightning'); print(m.version('espnet'), "
    "m.distribution('espnet').locate_file(''), sep='\\n')"
)


class EnvironmentMissing(Exception):
    """There is no such environment, and none can be made; the message says what to do."""


def folder() -> Path:
    """Return where the environment is kept."""
    named = os.environ.get("UPSTREAM_ENV")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(named or cache / "espnet3-launcher" / f"espnet-{VERSION}").expanduser().absolute()


def find() -> tuple[Path, Path]:
    """Return the interpreter and the folder of what is installed.

    Raises:
        EnvironmentMissing: it is not there, or not whole.
    """
    python = folder() / "bin" / "python"
    try:
        asked = subprocess.run([python, "-c", _CHECK], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise EnvironmentMissing(
            f"there is no environment with {REQUIREMENT} in {folder()} ({error.strerror}). "
            "`make test-upstream` makes it; UPSTREAM_ENV names another folder."
        ) from error
    version, _, installed = asked.stdout.strip().partition("\n")
    if asked.returncode != 0 or version != VERSION:
        found = f"espnet {version}" if version else (asked.stderr.strip().splitlines() or ["?"])[-1]
        raise EnvironmentMissing(
            f"the environment {folder()} does not hold {REQUIREMENT}: {found}. "
            f"Remove it and type `make test-upstream`, or name another one with UPSTREAM_ENV."
        )
    return python, Path(installed)


def make() -> None:
    """Make the environment.

    Raises:
        EnvironmentMissing: without Python 3.12, room on the disk, sox or the package registry.
    """
    python = find_python()
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(place.parent).free / 1e9
    if free_gb < NEEDED_GB:
        raise EnvironmentMissing(
            f"{REQUIREMENT} needs {NEEDED_GB} GB on the disk of {place.parent}, which has "
            f"{free_gb:.1f} GB left. Free some, or name a folder elsewhere with UPSTREAM_ENV."
        )
    if place.exists() and not (place / "pyvenv.cfg").exists() and any(place.iterdir()):
        raise EnvironmentMissing(
            f"{place} holds something else than a Python environment, and is left alone. "
            "Name another folder with UPSTREAM_ENV."
        )
    if not (shutil.which("sph2pipe") or shutil.which("sox")):
        raise EnvironmentMissing(
            "upstream's recipe needs sph2pipe, or sox in its place: apt-get install sox"
        )
    print(f"making {place} with {REQUIREMENT}: gigabytes, and some minutes", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(place)], check=True)
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--no-input", "--quiet"]
    command += ["--no-cache-dir", "--progress-bar", "off", REQUIREMENT]
    done = subprocess.run(["nice", "-n", "15", *command], timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise EnvironmentMissing(
            f"pip could not install {REQUIREMENT}; its message is above. A registry of your own is "
            "named in pip's configuration (pip config set global.index-url …)."
        )


def find_python() -> str:
    """Return a Python 3.12 that makes environments.

    Raises:
        EnvironmentMissing: there is none.
    """
    asked = os.environ.get("PYTHON312") or "python3.12"
    check = "import ensurepip, sys, venv; print(*sys.version_info[:2], sep='.')"
    try:
        done = subprocess.run([asked, "-c", check], capture_output=True, text=True, timeout=60)
        # pyenv's stand-ins are on the PATH for every version, and work for the chosen ones only.
        said = done.stdout.strip() or (done.stderr.strip().splitlines() or ["nothing"])[0]
    except OSError as error:
        said = str(error.strerror)
    if said != "3.12":
        raise EnvironmentMissing(
            f"espnet {VERSION} needs Python 3.12; {asked} says: {said}. "
            "Name one: make test-upstream PYTHON312=/path/to/python3.12"
        )
    return asked


def main() -> None:
    """Make the environment unless it is there."""
    try:
        folder().parent.mkdir(parents=True, exist_ok=True)
        # Two at once: the second waits, then finds it.
        with folder().with_name(f".{folder().name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                find()
            except EnvironmentMissing:
                make()
                find()
    except EnvironmentMissing as error:
        sys.exit(f"make: {error}")
    except OSError as error:
        sys.exit(f"make: {folder()} cannot be made: {error.strerror}. Name another: UPSTREAM_ENV=…")


if __name__ == "__main__":
    main()
