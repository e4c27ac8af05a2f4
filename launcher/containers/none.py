"""No container: the stage runs on the host, under a guard that leaves nothing behind."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.containers.base import ContainerRun, Feature, ImageFormat, guard_arguments
from launcher.recipe import default_python


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        python: the interpreter that runs the recipe; the launcher's own when not set.
    """

    name: str = "none"
    python: str | None = None


class NoContainer:
    """Runs the recipe with an interpreter of this host, in the environment of the job."""

    name = "none"
    image_format = ImageFormat.NONE
    features = frozenset(
        {Feature.GPUS, Feature.ANY_PATH, Feature.MULTI_NODE, Feature.TERMINAL, Feature.CPU_LIMIT}
    )

    def __init__(self, settings: Settings) -> None:
        self.interpreter = settings.python or default_python()

    def command(self, run: ContainerRun) -> list[str]:
        """Return the command line that starts the stage under the guard."""
        if run.terminal:
            return list(run.command)
        return [default_python(), str(run.guard), *guard_arguments(run)]

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the job's environment and what the stage adds to it."""
        visible = run.gpus if run.visible_gpus is None else run.visible_gpus
        if not visible:
            return {**inherited, **run.environment}
        # CUDA's own order begins with the fastest one; the ids are nvidia-smi's.
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(visible)}
        return {**order, **inherited, **run.environment, **gpus}

    def problem(self) -> str | None:
        """The host is always there."""
        return None

    def version(self) -> str:
        """Return what the host runs."""
        return f"host, {platform.platform()}"

    def remove(self, name: str) -> None:
        """Nothing is left: the guard saw to it."""


Implementation = NoContainer
