"""Enroot, from 3 on: a squashfs file, started without being unpacked. Linux 4.18 or newer.

Written from its documentation and source; no part of this was run:

- https://github.com/NVIDIA/enroot/blob/master/doc/cmd/start.md (options; starting an image needs
  squashfuse and fuse-overlayfs)
- https://github.com/NVIDIA/enroot/blob/master/doc/image-format.md (fields of mounts, x-create)
- https://github.com/NVIDIA/enroot/blob/master/doc/standard-hooks.md (GPUs, ``/dev``, home)
- ``src/runtime.sh`` and ``src/common.sh`` there: a mount may hold no white space and is split at
  colons; variables go through a file of lines, from which surrounding quotes are taken twice.

Every program that Enroot runs on its way becomes the next one, so signals reach the guard.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
from launcher.errors import ConfigError

_CLIENT_VARIABLES = tuple(
    f"ENROOT_{name}_PATH"
    for name in ("LIBRARY", "SYSCONF", "RUNTIME", "CONFIG", "CACHE", "DATA", "TEMP")
)
# Whatever a user's or the site's configuration says: what is in the environment goes before it.
_ISOLATION = {
    "ENROOT_LOGIN_SHELL": "no",  # or /etc/profile would set PATH anew
    "ENROOT_MOUNT_HOME": "no",
    "ENROOT_REMAP_ROOT": "no",
    "ENROOT_RESTRICT_DEV": "yes",  # or all GPUs would be seen
    "ENROOT_ROOTFS_WRITABLE": "no",
}
_LOSES_QUOTES = re.compile(r"""["'].*["']\s*""")
# It has no option for the working directory.
_CHANGE_DIR = 'cd "$0" && exec "$@"'


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        executable: by name or path.
        python: the interpreter in the image.
        run_options: stand after all others, and have the last word, at one's own risk.
    """

    name: str = "enroot"
    executable: str = "enroot"
    python: str = "python"
    run_options: list[str] = field(default_factory=list)


class Enroot:
    """Containers that are the job's child processes, in a user and a mount namespace."""

    name = "enroot"
    image_format = ImageFormat.SQSH
    features = frozenset({Feature.GPUS, Feature.MULTI_NODE, Feature.TERMINAL, Feature.CPU_LIMIT})

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.interpreter = settings.python

    def command(self, run: ContainerRun) -> list[str]:
        """Return the line of ``enroot start``.

        Raises:
            ConfigError: a variable holds a line break, which it cannot pass on.
        """
        settings = self.settings
        mounts = [*sorted_mounts(run.mounts), *(Mount(each, each) for each in run.devices)]
        hidden = ("CUDA_VISIBLE_DEVICES",) if run.gpus else ()
        plain = {
            key: value
            for key, value in run.environment.items()
            if key not in (*run.secrets, *hidden)
        }
        return [
            settings.executable,
            "start",
            *(f"--mount={_fstab(mount)}" for mount in mounts),
            *(f"--env={name}={_line(name, value)}" for name, value in plain.items()),
            *(f"--env={name}" for name in run.secrets),
            *_gpus(run),
            *settings.run_options,
            run.image,
            *("/bin/sh", "-c", _CHANGE_DIR, str(run.working_dir)),
            *guarded(run, self.interpreter),
        ]

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what Enroot reads, and the secrets. NVIDIA_* of the host would win over ours."""
        return {**environment_of(inherited, _CLIENT_VARIABLES, run.secrets), **_ISOLATION}

    def problem(self) -> str | None:
        """See that the programs are there and may make a user namespace."""
        program = self.settings.executable
        answer = self._ask(program, "version")
        if missing := not_installed(answer, program, "Install Enroot"):
            return missing
        if not answer.ok:
            return (
                f"it does not work ({answer.error or 'no reason given'}). See `{program} version`"
            )
        for helper in ("squashfuse", "fuse-overlayfs"):
            if self._ask(helper, "--help").status is None:
                return (
                    f"there is no program '{helper}' here, which it starts images with. Install it"
                )
        reason = namespace_problem(os.environ)
        return None if reason is None else no_namespaces(reason)

    def version(self) -> str:
        """Return its version, such as ``enroot 4.0.1``."""
        answer = self._ask(self.settings.executable, "version")
        return f"enroot {answer.output if answer.ok else 'of unknown version'}"

    def remove(self, name: str) -> None:
        """Nothing is left: containers are children of the job, and have no names."""

    def _ask(self, *command: str) -> Answer:
        return ask(command, {**environment_of(os.environ, _CLIENT_VARIABLES), **_ISOLATION})


def _fstab(mount: Mount) -> str:
    mode = "ro" if mount.read_only else "rw"
    return f"{mount.source}:{mount.target}:none:x-create=auto,rbind,{mode}"


def _line(name: str, value: str) -> str:
    if "\n" in value:
        raise ConfigError(
            f"enroot cannot pass on the variable {name}: it holds a line break. Take it out of the "
            "environment of the stages, or use --container apptainer, docker or podman."
        )
    return f'""{value}""' if _LOSES_QUOTES.fullmatch(value) else value


def _gpus(run: ContainerRun) -> list[str]:
    if not run.gpus:
        return ["--env=NVIDIA_VISIBLE_DEVICES=void"]
    return [
        f"--env=NVIDIA_VISIBLE_DEVICES={','.join(run.gpus)}",
        "--env=NVIDIA_DRIVER_CAPABILITIES=compute,utility",  # utility alone is its default
    ]


Implementation = Enroot
