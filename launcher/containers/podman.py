"""Podman, from 4 on, as root or rootless. GPUs come through CDI: ``/etc/cdi/nvidia.yaml``.

It needs no first process of its own (``--init``, for which Podman wants ``catatonit``): the guard
reaps what the stage leaves. The user's own ``podman inspect`` shows a running container's
environment, secrets among it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from launcher.containers import _watched_client
from launcher.containers._client import (
    ASK_TIMEOUT_S,
    Answer,
    ask,
    environment_of,
    not_installed,
    watched,
)
from launcher.containers._oci import (
    environment_options,
    found_containers,
    image_and_command,
    run_options,
)
from launcher.containers.base import ContainerRun, Feature, FoundContainer, ImageFormat

# Rootless Podman asks systemd's user instance for a cgroup over D-Bus.
_CLIENT_VARIABLES = ("CONTAINER_HOST", "CONTAINER_SSHKEY", "CONTAINERS_*", "DBUS_SESSION_BUS_*")
_REMOVE_TIMEOUT_S = 30.0


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        executable: by name or path.
        python: the interpreter in the image.
        global_options: stand before ``run``, such as ``--cgroup-manager=cgroupfs``.
        run_options: stand after all others of ``run``, and have the last word, at one's own risk.
    """

    name: str = "podman"
    executable: str = "podman"
    python: str = "python"
    global_options: list[str] = field(default_factory=list)
    run_options: list[str] = field(default_factory=list)


class Podman:
    """Containers that Podman starts itself, with no daemon."""

    name = "podman"
    image_format = ImageFormat.OCI
    features = frozenset(Feature)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.interpreter = settings.python

    def command(self, run: ContainerRun) -> list[str]:
        """Return the line of ``podman run``."""
        settings = self.settings
        return [
            *watched(run, _watched_client.FOLLOW),
            settings.executable,
            *settings.global_options,
            "run",
            "--http-proxy=false",  # what of them the stage is to see is in its environment
            *run_options(run, settings.run_options),
            *_user(run),
            *(f"--device=nvidia.com/gpu={gpu}" for gpu in run.gpus),
            # For the hook that older installations of NVIDIA's toolkit have: all GPUs are in the
            # specification of CDI, and an image may say NVIDIA_VISIBLE_DEVICES=all.
            "--env=NVIDIA_VISIBLE_DEVICES=void",
            # A container that sees only its own GPUs counts them from 0.
            *environment_options(run, leave_out=["CUDA_VISIBLE_DEVICES"] if run.gpus else []),
            *settings.run_options,
            *image_and_command(run, self.interpreter),
        ]

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what Podman reads, and the secrets."""
        return environment_of(inherited, _CLIENT_VARIABLES, run.secrets)

    def problem(self) -> str | None:
        """Have Podman look at its storage and, when rootless, make its user namespace."""
        answer = self._ask("info", "--format", "{{.Host.Security.Rootless}}")
        program = self.settings.executable
        if answer.ok:
            return self._unmapped() if answer.output == "true" else None
        if missing := not_installed(answer, program, "Install Podman"):
            return missing
        return f"it does not work ({answer.error or 'no reason given'}). See `{program} info`"

    def version(self) -> str:
        """Return Podman's version."""
        answer = self._ask("version", "--format", "{{.Client.Version}}")
        return f"podman {answer.output if answer.ok else 'of unknown version'}"

    def remove(self, name: str) -> None:
        """Kill and remove a container."""
        self._ask("kill", name)  # `rm --force` alone first waits for it to stop
        self._ask("rm", "--force", "--ignore", name, timeout_s=_REMOVE_TIMEOUT_S)

    def labelled(self, label: str) -> list[FoundContainer]:
        """Return the containers that have a label."""
        return found_containers(self._ask, label, is_own_store=True)

    def _unmapped(self) -> str | None:
        """Say so when a rootless Podman has no subordinate ids: the user's own is then root's."""
        answer = self._ask("unshare", "cat", "/proc/self/uid_map")
        if not answer.ok or len(answer.output.splitlines()) > 1:
            return None
        return (
            "you have no subordinate user ids, so what stages write could not be yours. Have some "
            "given to you (sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
            "$USER), then: podman system migrate"
        )

    def _ask(self, *words: str, timeout_s: float = ASK_TIMEOUT_S) -> Answer:
        command = [self.settings.executable, *self.settings.global_options, *words]
        return ask(command, environment_of(os.environ, _CLIENT_VARIABLES), timeout_s=timeout_s)


def _user(run: ContainerRun) -> list[str]:
    user = f"--user={run.uid}:{run.gids[0]}"
    if run.uid == 0:
        return [user, *(f"--group-add={gid}" for gid in run.gids[1:])]
    # Other groups have no number inside, but with crun they still open their files.
    groups = ["--group-add=keep-groups"] if run.gids[1:] else []
    return ["--userns=keep-id", user, *groups]


Implementation = Podman
