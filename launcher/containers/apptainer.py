"""Apptainer, from 1.1 on, or Singularity with ``executable=singularity``: a SIF file, run in place.

Tried with 1.4.5. A signal to the client reaches the guard, and the guard's exit status comes back;
what is still odd about signals, ``_watched_client.py`` sees to.

``/dev/shm`` is the container's own, half of the machine's memory, and is gone with it. ``/tmp`` is
64 MB for anybody but root unless the run mounts something there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.containers import _watched_client
from launcher.containers._client import (
    Answer,
    ask,
    environment_of,
    namespace_problem,
    not_installed,
    watched,
)
from launcher.containers._oci import mount_option, sorted_mounts
from launcher.containers.base import ContainerRun, Feature, ImageFormat, Mount, guarded

# Of its settings those that neither let anything in nor out. Not NV, BIND, MOUNT, HOME, ENV and the
# like; nor APPTAINERENV_*, which would reach the stage.
_SETTINGS = ("CACHEDIR", "CONFIGDIR", "CONFIG_FILE", "TMPDIR", "UNSQUASH", "USERNS")
_CAP_SYS_RESOURCE = 24  # capabilities(7)


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        executable: ``apptainer`` or ``singularity``, by name or path.
        python: the interpreter in the image.
        global_options: stand before ``exec``, such as ``--debug``.
        run_options: stand after all others of ``exec``, and have the last word, at one's own risk.
        userns: whether to work in a user namespace even where Apptainer could do without; null:
            where it has to, which is root without CAP_SYS_RESOURCE (as in a container).
    """

    name: str = "apptainer"
    executable: str = "apptainer"
    python: str = "python"
    global_options: list[str] = field(default_factory=list)
    run_options: list[str] = field(default_factory=list)
    userns: bool | None = None


class Apptainer:
    """Containers that are child processes of the job."""

    name = "apptainer"
    image_format = ImageFormat.SIF
    features = frozenset(
        {Feature.GPUS, Feature.ANY_PATH, Feature.MULTI_NODE, Feature.TERMINAL, Feature.CPU_LIMIT}
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.interpreter = settings.python
        self._userns = _is_limited_root() if settings.userns is None else settings.userns

    def command(self, run: ContainerRun) -> list[str]:
        """Return the line of ``apptainer exec``."""
        settings = self.settings
        mounts = [*sorted_mounts(run.mounts), *(Mount(each, each) for each in run.devices)]
        return [
            *watched(run, _watched_client.END),
            settings.executable,
            "--quiet",
            *settings.global_options,
            "exec",
            "--contain",  # a /dev, /tmp and home of its own
            "--no-home",
            "--cleanenv",
            "--no-eval",  # or values of variables would be run as shell code
            "--pid",
            "--ipc",
            "--no-privs",  # root has no capabilities in it, and nobody gains any
            *(["--userns"] if self._userns else []),
            *(["--nv"] if run.gpus else []),
            f"--pwd={run.working_dir}",
            *(f"--mount={mount_option(mount, source='src', target='dst')}" for mount in mounts),
            *settings.run_options,
            run.image,
            *self._home(run),
            *guarded(run, self.interpreter),
        ]

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what Apptainer reads, and under its prefix what the stage is to see.

        It is not in the command line: ``--env`` would split values at commas.
        """
        is_singularity = Path(self.settings.executable).name.startswith("singularity")
        tool = "SINGULARITY" if is_singularity else "APPTAINER"
        client = environment_of(inherited, [f"{tool}_{name}" for name in _SETTINGS])
        secrets = {name: inherited[name] for name in run.secrets if name in inherited}
        # CUDA's own order begins with the fastest one; the ids are nvidia-smi's.
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if run.gpus else {}
        inside = {**order, **run.environment, **self._visible_gpus(run), **secrets}
        inside.pop("HOME", None)
        return {**client, **{f"{tool}ENV_{name}": value for name, value in inside.items()}}

    def problem(self) -> str | None:
        """See that the program is there and may make the namespaces that it needs."""
        answer = self._ask("--version")
        program = self.settings.executable
        how = "Load its module (module load apptainer), install Apptainer"
        if missing := not_installed(answer, program, how):
            return missing
        if not answer.ok:
            return (
                f"it does not work ({answer.error or 'no reason given'}). See `{program} version`"
            )
        reason = namespace_problem(os.environ) if os.geteuid() != 0 or self._userns else None
        if reason is None or self._is_setuid():
            return None
        return (
            f"you may not make user namespaces here ({reason}), and it is not installed setuid. "
            "Have the package apptainer-suid installed, or user namespaces allowed "
            "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
        )

    def version(self) -> str:
        """Return its version, such as ``apptainer 1.4.5``."""
        answer = self._ask("--version")
        return answer.output.replace(" version", "") if answer.ok else f"{self.name}, unknown"

    def remove(self, name: str) -> None:
        """Nothing is left: containers are children of the job, and have no names."""

    def _home(self, run: ContainerRun) -> list[str]:
        # It forbids APPTAINERENV_HOME, and --home cannot express a colon.
        home = run.environment.get("HOME")
        return [] if home is None else ["/usr/bin/env", f"HOME={home}"]

    def _visible_gpus(self, run: ContainerRun) -> dict[str, str]:
        # --nv brings every GPU that the job's device cgroup allows.
        visible = run.gpus if run.visible_gpus is None else run.visible_gpus
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible)} if run.gpus else {}

    def _is_setuid(self) -> bool:
        libexec = self._ask("buildcfg", "LIBEXECDIR").output.rpartition("=")[2]
        return bool(libexec) and any(Path(libexec).glob("*/bin/starter-suid"))

    def _ask(self, *words: str) -> Answer:
        return ask([self.settings.executable, *words], environment_of(os.environ))


def _is_limited_root() -> bool:
    """Tell whether this is root without CAP_SYS_RESOURCE, who cannot be given all capabilities."""
    if os.geteuid() != 0:
        return False
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return False
    bounding = next((line.split()[1] for line in lines if line.startswith("CapBnd:")), "0")
    return not int(bounding, 16) >> _CAP_SYS_RESOURCE & 1


Implementation = Apptainer
