"""Where the rehearsal cluster keeps everything, and how it tells what went wrong."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_ROOT = Path("/var/lib/launcher-rehearsal")
TEMPLATES = Path(__file__).parent / "templates"


class RehearsalError(Exception):
    """Something stands in the way; the message says what, and what to do."""


class State:
    """The one folder that holds configuration, logs, data and records of the rehearsal cluster.

    Others than root traverse and read it; what is secret in it has a narrower mode of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.conf = root / "conf"
        self.logs = root / "logs"
        self.run = root / "run"
        self.data = root / "data"
        # Survives `cluster-down`: what was downloaded or is slow to make.
        self.cache = root / "cache"
        # Tells a folder that may be emptied from any other.
        self.lock = root / "launcher-rehearsal.lock"

    @classmethod
    def of_environment(cls) -> State:
        """Return the state in REHEARSAL_DIR, or in its usual place."""
        root = Path(os.environ.get("REHEARSAL_DIR") or DEFAULT_ROOT)
        # Some of the configuration files that name paths below it have no way to quote.
        if not re.fullmatch(r"(/[\w.+-]+)+", str(root), re.ASCII):
            raise RehearsalError(
                f"REHEARSAL_DIR must be an absolute path of letters, digits and . _ + -, not {root}"
            )
        return cls(root)

    @property
    def folders(self) -> list[Path]:
        """The folders that everything is in."""
        return [self.bin, self.conf, self.logs, self.run, self.data, self.cache]

    def create(self) -> None:
        """Make the folders that are not there.

        Raises:
            RehearsalError: this folder is somebody else's.
        """
        if self.root.exists() and not self.lock.exists() and any(self.root.iterdir()):
            raise RehearsalError(
                f"{self.root} was not made by cluster-up, and is not empty: name another "
                "REHEARSAL_DIR"
            )
        make_folder(self.root)
        self.lock.touch()
        for folder in self.folders:
            make_folder(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time bring up or take down; a second one waits."""
        with self.lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove(self) -> None:
        """Remove all that was made in the folder, and the folder unless it holds something else."""
        for folder in self.folders:
            if folder.exists():
                shutil.rmtree(folder)
        self.lock.unlink()
        if not any(self.root.iterdir()) and not self.root.is_mount():
            self.root.rmdir()


def make_folder(path: Path, owner: str | None = None, mode: int = 0o755) -> Path:
    """Make a folder of exactly this mode, whatever the umask, and of this owner if one is named."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    if owner is not None:
        shutil.chown(path, owner)
    return path


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file of exactly this mode; it is never readable by more than that."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        os.fchmod(descriptor, mode)
    temporary.replace(path)


def write_template(name: str, path: Path, mode: int = 0o644, **values: object) -> None:
    """Fill in a template and write it."""
    template = string.Template((TEMPLATES / name).read_text())
    write(path, template.substitute({key: str(value) for key, value in values.items()}), mode)
