"""Make `.venv` from the locks, or find within a moment that it is there: ``make_env.py run | dev``.

It needs only the standard library of Python 3.10 or newer. ``clean`` removes what it made.
"""

from __future__ import annotations  # an older Python gets as far as the message about its age

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
HERE = Path("requirements")
OLDEST_PYTHON = (3, 10)
# Compiled by compile_all instead of by pip, which uses one core and does it between downloads.
INSTALL = ["-m", "pip", "install", "-qq", "--no-compile", "--no-input"]
LOCKED = ["--no-deps", "--require-hashes", "-r"]

# What is installed, in order; README.md says why torch comes apart.
STEPS = {
    "run": [
        ("locked packages", [*LOCKED, str(HERE / "run.lock")]),
        ("torch", ["-r", str(HERE / "torch.txt")]),
        ("this project", ["--no-deps", "--no-build-isolation", "--editable", "."]),
    ],
    "dev": [("test tools", [*LOCKED, str(HERE / "dev.lock")])],
}
INPUTS = {
    "run": ["requirements/run.lock", "requirements/torch.txt", "pyproject.toml"],
    "dev": ["requirements/dev.lock"],
}


def main(target: str) -> None:
    """Bring ``.venv`` up to ``target``: ``run``, or ``dev``, which is run and the test tools."""
    if sys.version_info < OLDEST_PYTHON:
        fail(
            f"this needs Python 3.10 or newer; {sys.executable} is "
            f"{sys.version.split()[0]}. Name another one: make PYTHON=python3.12 …"
        )
    if os.pathsep in str(ROOT):
        fail(f"Python makes no environment below a folder with '{os.pathsep}' in its name: {ROOT}")
    os.chdir(ROOT)
    if target == "clean":
        clean()
        return
    # Two makes at once: the second waits, then finds everything there.
    with (HERE / "run.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_current("run"):
            shutil.rmtree(VENV, ignore_errors=True)
            create()
            install("run")
        if target == "dev" and not is_current("dev"):
            install("dev")


def is_current(target: str) -> bool:
    """Tell whether the environment was wholly made from just these locks, here, and still works."""
    try:
        stamp = json.loads(stamp_path(target).read_text())
    except (OSError, ValueError):
        return False
    if stamp["key"] != key(target) or not set(stamp["packages"]) <= set(packages()):
        return False
    # The Python that it was made with may be gone since.
    try:
        return subprocess.run([PYTHON, "-S", "-c", ""], stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def create() -> None:
    """Make an empty virtual environment with pip."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ModuleNotFoundError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail(
            f"{sys.executable} lacks its module {error.name}, which makes environments. "
            f"On Debian and Ubuntu: apt-get install python{version}-venv. "
            "Or name another Python: make PYTHON=…"
        )
    print(f"making .venv with Python {sys.version.split()[0]}; this takes a minute or two")
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)


def install(target: str) -> None:
    """Install the target's packages and, last of all, write its stamp."""
    compiling = None
    for name, arguments in STEPS[target]:
        with timed(name):
            done = subprocess.run([PYTHON, *INSTALL, *arguments])
        if done.returncode != 0:
            fail(
                f"pip could not install the {name}; its message is above. A registry of your own "
                "is named in pip's configuration (pip config set global.index-url …)."
            )
        compiling = compiling or compile_all(jobs=1)  # while the next step is downloaded
    with timed("compiling"):
        compiling.wait()
        compile_all(jobs=0).wait()  # all cores, and only what is not compiled yet
    stamp = {"key": key(target), "packages": packages()}
    temporary = VENV / ".stamp.tmp"
    temporary.write_text(json.dumps(stamp))
    temporary.replace(stamp_path(target))


def compile_all(*, jobs: int) -> subprocess.Popen:
    """Start compiling what is installed: each stage is a new process that would do it again
    where Python may not write beside its packages (PYTHONDONTWRITEBYTECODE, a read-only disk).
    """
    packages_dir = str(next(VENV.glob("lib/python3*/site-packages")))
    # A few packages ship files of other Python versions: what cannot be compiled is left.
    # Nor does anybody import the packages' own tests, one file in seven.
    options = ["-qq", "-x", "/tests/", "-j", str(jobs)]
    return subprocess.Popen([PYTHON, "-m", "compileall", *options, packages_dir])


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Say what is being done, and afterwards how long it took."""
    start = time.monotonic()
    print(f"  {name} …", end="", flush=True)
    yield
    print(f" {time.monotonic() - start:.0f} s")


def stamp_path(target: str) -> Path:
    """Return the file that says that ``target`` is wholly installed."""
    return VENV / f".{target}-stamp.json"


def key(target: str) -> str:
    """Return what the environment depends on, as a digest: the inputs and where it is."""
    digest = hashlib.sha256(str(VENV).encode())
    for name in INPUTS[target]:
        digest.update(b"\0" + Path(name).read_bytes())
    return digest.hexdigest()


def packages() -> list[str]:
    """Return the installed distributions, as ``name-version.dist-info``."""
    return sorted(path.name for path in VENV.glob("lib/python3*/site-packages/*.dist-info"))


def clean() -> None:
    """Remove the environment and caches, and nothing that a recipe or a launch has written."""
    for path in [VENV, *map(Path, (".pytest_cache", ".mypy_cache", ".ruff_cache", "build"))]:
        shutil.rmtree(path, ignore_errors=True)
    for path in ROOT.glob("*.egg-info"):
        shutil.rmtree(path)
    for package in ("launcher", "espnet3", "egs3", "tests", "requirements"):
        for path in (ROOT / package).rglob("__pycache__"):
            shutil.rmtree(path, ignore_errors=True)


def fail(message: str) -> None:
    """End with a message."""
    sys.exit(f"make: {message}")


if __name__ == "__main__":
    main(sys.argv[1])
