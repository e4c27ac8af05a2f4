"""What a launch was made from: the state of the code, and versions."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and changed files of a work tree; None outside of git, or without git."""

    def ask(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except FileNotFoundError:
            return None
        return done.stdout.rstrip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    asked = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
    changed = (ask(*asked) or "").rstrip("\0").split("\0")
    return {"commit": commit, "changed_files": [each[3:] for each in changed if each]}


def versions() -> dict[str, str]:
    """Return the versions of Python, this machine and the libraries that jobs are made with."""
    from importlib.metadata import version

    names = ("submitit", "hydra-core", "omegaconf", "rich")
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        **{name: version(name) for name in names},
    }
