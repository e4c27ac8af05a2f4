"""Charliecloud, from 0.31 on: no privileges, no daemon, no setuid helper. No GPUs and no limits.

``ch-run`` alone could mount only onto what an image has, and only writable: a program of the
launcher's goes before it (``_charliecloud_root.py``), which unpacks the squashfs file once and lays
an empty layer over it for each run. The namespaces of processes and of the network, ``/dev`` and
``/dev/shm`` are the host's. Killed with SIGKILL, ``ch-run`` leaves what the stage's command had
started to the job, which adopts and ends it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.containers import _charliecloud_root
from launcher.containers._client import (
    Answer,
    ask,
    environment_of,
    namespace_problem,
    no_namespaces,
    not_installed,
)
from launcher.containers._oci import sorted_mounts
from launcher.containers.base import ContainerRun, Feature, ImageFormat, Mount, guarded
from launcher.recipe import default_python

# As Docker has it for an image that sets none; the image's own is in the run's environment.
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        executable: ``ch-run``, by name or path.
        python: the interpreter in the image.
        run_options: stand after all others, and have the last word, at one's own risk.
        unpack_dir: folder in which images are unpacked, once each; beside the image when null.
    """

    name: str = "charliecloud"
    executable: str = "ch-run"
    python: str = "python"
    run_options: list[str] = field(default_factory=list)
    unpack_dir: str | None = None


class Charliecloud:
    """Containers that are the job's child processes, in a user and a mount namespace."""

    name = "charliecloud"
    image_format = ImageFormat.SQSH
    features = frozenset(
        {Feature.ANY_PATH, Feature.MULTI_NODE, Feature.TERMINAL, Feature.CPU_LIMIT}
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.interpreter = settings.python

    def command(self, run: ContainerRun) -> list[str]:
        """Return the line that prepares the root and becomes ``ch-run``."""
        settings = self.settings
        mounts = sorted_mounts(run.mounts)
        unpack_dir = settings.unpack_dir or str(Path(run.image).parent)
        return [
            *(default_python(), "-IS", _charliecloud_root.__file__),
            *(run.image, unpack_dir),
            *(word for mount in mounts for word in _words(mount)),
            "--",
            settings.executable,
            "--private-tmp",
            *_environment_options(run),
            *(f"--bind=mounts/{number}:{mount.target}" for number, mount in enumerate(mounts)),
            f"--cd={run.working_dir}",
            *settings.run_options,
            "./root",
            "--",
            *guarded(run, self.interpreter),
        ]

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what ``ch-run`` reads, and the secrets, which it lets through."""
        user = run.environment.get("USER", str(run.uid))  # it insists on having one
        return {"USER": user, **environment_of(inherited, (), run.secrets)}

    def problem(self) -> str | None:
        """See that the programs are there and may make a user namespace."""
        program = self.settings.executable
        answer = self._ask(program, "--version")
        if missing := not_installed(answer, program, "Install Charliecloud"):
            return missing
        if not answer.ok:
            return f"it does not work ({answer.error or 'no reason given'})"
        if self._ask("unsquashfs", "-version").status is None:
            return "there is no program 'unsquashfs' here. Install squashfs-tools"
        reason = namespace_problem(os.environ)
        return None if reason is None else no_namespaces(reason)

    def version(self) -> str:
        """Return its version, such as ``charliecloud 0.31``."""
        answer = self._ask(self.settings.executable, "--version")
        # Older ones say it on standard error.
        return (
            f"charliecloud {answer.output or answer.error if answer.ok else 'of unknown version'}"
        )

    def remove(self, name: str) -> None:
        """Nothing is left: containers are children of the job, and have no names."""

    def _ask(self, *command: str) -> Answer:
        return ask(command, {"USER": str(os.getuid()), **environment_of(os.environ)})


def _words(mount: Mount) -> tuple[str, str, str]:
    return ("ro" if mount.read_only else "rw", str(mount.source), str(mount.target))


def _environment_options(run: ContainerRun) -> list[str]:
    plain = {"PATH": _DEFAULT_PATH} | {
        key: value for key, value in run.environment.items() if key not in run.secrets
    }
    return [
        # An extended glob of fnmatch(3): all variables of the client's but the secrets.
        f"--unset-env=!({'|'.join(run.secrets)})" if run.secrets else "--unset-env=*",
        "--env-no-expand",  # or ":$NAME:" in a value would be replaced
        *(f"--set-env={name}={_quoted(value)}" for name, value in plain.items()),
    ]


def _quoted(value: str) -> str:
    """Put quotes around a value that has some: it loses one pair of single ones."""
    return f"'{value}'" if value.startswith("'") and value.endswith("'") else value


Implementation = Charliecloud
