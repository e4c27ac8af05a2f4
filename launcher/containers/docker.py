"""Docker, from 20.10 on: the daemon of this machine runs the container.

The daemon, not the client, is the container's parent. What keeps it from outliving its job is its
standard input, which ends with the client (moby#48566 tells what becomes of one without it), and
what keeps it from reading the whole machine's GPUs is that it is told which ones it gets. Whoever
may use the daemon can read the environment of what runs (``docker inspect``), secrets among it.
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
from launcher.errors import ConfigError

_CLIENT_VARIABLES = ("DOCKER_*",)
_GPU_FLAGS = ("gpus", "cdi")
_REMOVE_TIMEOUT_S = 30.0


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        executable: the client, by name or path.
        python: the interpreter in the image.
        global_options: stand before ``run``, such as ``--context=…``.
        run_options: stand after all others of ``run``, and have the last word, at one's own risk.
        gpu_flag: how GPUs are asked for: ``gpus`` (``--gpus``, NVIDIA Container Toolkit), or
            ``cdi`` (``--device nvidia.com/gpu=…``, from Docker 28 on).
        init: whether ``tini``, which comes with Docker, is the container's first process.
        rootless: whether the daemon runs as this user; root inside is then the user outside.
    """

    name: str = "docker"
    executable: str = "docker"
    python: str = "python"
    global_options: list[str] = field(default_factory=list)
    run_options: list[str] = field(default_factory=list)
    gpu_flag: str = "gpus"
    init: bool = True
    rootless: bool = False


class Docker:
    """Containers of a Docker daemon."""

    name = "docker"
    image_format = ImageFormat.OCI
    features = frozenset(Feature)

    def __init__(self, settings: Settings) -> None:
        if settings.gpu_flag not in _GPU_FLAGS:
            raise ConfigError(
                f"container.gpu_flag is '{settings.gpu_flag}'; "
                f"it is to be one of {', '.join(_GPU_FLAGS)}"
            )
        self.settings = settings
        self.interpreter = settings.python

    def command(self, run: ContainerRun) -> list[str]:
        """Return the line of ``docker run``."""
        settings = self.settings
        return [
            *watched(run, _watched_client.END),
            settings.executable,
            *settings.global_options,
            "run",
            *(["--init"] if settings.init else []),
            *run_options(run, settings.run_options),
            *self._user(run),
            *self._gpus(run),
            # A container that sees only its own GPUs counts them from 0.
            *environment_options(run, leave_out=["CUDA_VISIBLE_DEVICES"] if run.gpus else []),
            *settings.run_options,
            *image_and_command(run, self.interpreter),
        ]

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what the client reads, and the secrets."""
        return environment_of(inherited, _CLIENT_VARIABLES, run.secrets)

    def problem(self) -> str | None:
        """Ask the daemon who it is."""
        answer = self._ask("info", "--format", "{{.ServerVersion}} {{.SecurityOptions}}")
        if missing := not_installed(answer, self.settings.executable, "Install Docker"):
            return missing
        if "permission denied" in answer.error:
            return (
                f"its daemon does not let you in ({answer.error}). Have yourself added to the "
                "group docker (sudo usermod -aG docker $USER) and log in anew"
            )
        # Older clients exit 0 and say so only on standard error.
        if not answer.ok or not answer.output or answer.output.startswith("["):
            return (
                f"its daemon does not answer ({answer.error or 'no reason given'}). Start it (sudo "
                "systemctl start docker), or say where it is with DOCKER_HOST or docker context use"
            )
        return self._wrong_user(answer.output)

    def version(self) -> str:
        """Return the daemon's version."""
        answer = self._ask("version", "--format", "{{.Server.Version}}")
        return f"docker {answer.output if answer.ok else 'of unknown version'}"

    def remove(self, name: str) -> None:
        """Kill and remove a container."""
        self._ask("rm", "--force", name, timeout_s=_REMOVE_TIMEOUT_S)

    def labelled(self, label: str) -> list[FoundContainer]:
        """Return the containers that have a label."""
        return found_containers(self._ask, label, is_own_store=self.settings.rootless)

    def _user(self, run: ContainerRun) -> list[str]:
        if self.settings.rootless:
            return ["--user=0:0"]
        return [
            f"--user={run.uid}:{run.gids[0]}",
            *(f"--group-add={gid}" for gid in run.gids[1:]),
        ]

    def _gpus(self, run: ContainerRun) -> list[str]:
        # Where NVIDIA's runtime is the daemon's default, an image that says
        # NVIDIA_VISIBLE_DEVICES=all, as PyTorch's do, gets all GPUs unless this says otherwise.
        void = ["--env=NVIDIA_VISIBLE_DEVICES=void"]
        if not run.gpus:
            return void
        if self.settings.gpu_flag == "cdi":
            return [*void, *(f"--device=nvidia.com/gpu={gpu}" for gpu in run.gpus)]
        # The value is CSV: without the quotes, all after the comma would be another option.
        return [f'--gpus="device={",".join(run.gpus)}"']

    def _wrong_user(self, info: str) -> str | None:
        is_rootless = "name=rootless" in info
        if is_rootless != self.settings.rootless:
            truth = "runs as you (rootless Docker)" if is_rootless else "does not run as you"
            value = str(is_rootless).lower()
            return (
                f"its daemon {truth}, and what stages write would not be yours. "
                f"Set container.rootless={value}"
            )
        if "name=userns" in info and "--userns=host" not in self.settings.run_options:
            return (
                "its daemon gives containers other user ids (userns-remap), and what stages write "
                "would not be yours. Set container.run_options=[--userns=host]"
            )
        return None

    def _ask(self, *words: str, timeout_s: float = ASK_TIMEOUT_S) -> Answer:
        command = [self.settings.executable, *self.settings.global_options, *words]
        return ask(command, environment_of(os.environ, _CLIENT_VARIABLES), timeout_s=timeout_s)


Implementation = Docker
