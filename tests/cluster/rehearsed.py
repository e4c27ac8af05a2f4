"""The rehearsal cluster as tests see it: what is up, and how to run something in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rehearsal:
    """What is up on this machine.

    Attributes:
        environment: to be laid over ``os.environ``; chooses the Slurm without accounts.
        environment_accounting: the same for the one with accounts; None when it is not up.
        registry: ``host:port`` of the image registry.
    """

    environment: dict[str, str]
    environment_accounting: dict[str, str] | None
    registry: str


@dataclass(frozen=True)
class Slurm:
    """One of the two Slurms, which answers. ``nodes`` are three, with four GPUs each."""

    environment: dict[str, str]
    accounting: bool
    nodes: tuple[str, ...]

    def run(self, *command: str, user: User | None = None) -> str:
        """Run a command of this Slurm as root or as ``user``; return what it printed."""
        return run(*command, environment=self.environment, user=user)


@dataclass(frozen=True)
class User:
    """A Linux user without privileges, who may use Docker."""

    name: str
    uid: int
    gid: int
    home: Path

    def command(self, *command: str) -> list[str]:
        """Return the command line with which root has this user run a command."""
        variables = [f"{key}={self.name}" for key in ("USER", "LOGNAME")]
        return ["runuser", "-u", self.name, "--", "env", f"HOME={self.home}", *variables, *command]


def run(*command: str, environment: Mapping[str, str], user: User | None = None) -> str:
    """Run a command that has to succeed; return its standard output."""
    done = subprocess.run(
        user.command(*command) if user else command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd="/",
        env={"USER": "root", **os.environ, **environment},
        timeout=120,
    )
    assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
