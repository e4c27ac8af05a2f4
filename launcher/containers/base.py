"""What the launcher asks of a container runtime, and what it tells it.

A runtime is one module here and one YAML in ``conf/container``. Its ``Implementation`` turns a
:class:`ContainerRun` into a command line; it starts nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

from launcher.job import guard

# Where a container finds what the launcher brings: guard.py, which is its entry process. Only this
# folder is not at its own path; its name on the host may hold what a runtime cannot express.
INSIDE = Path("/launcher")


class ImageFormat(str, Enum):
    """The form in which a runtime takes its image."""

    OCI = "oci"  # of a daemon or an engine's own store, named by digest
    SIF = "sif"  # one file, by path
    SQSH = "sqsh"  # a squashfs file, by path
    NONE = "none"  # the host itself


class Feature(str, Enum):
    """What a stage may ask for that not every runtime has. The value is what messages call it."""

    GPUS = "GPUs"
    MEMORY_LIMIT = "a memory limit (mem_gb)"
    CPU_LIMIT = "a limit of CPUs (cpus_per_task)"
    SHARED_MEMORY = "a size of shared memory"
    ANY_PATH = "paths with ':', '\\' or white space in them"
    MULTI_NODE = "several nodes"
    TERMINAL = "a terminal"


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host that the stage sees at ``target``.

    The two are the same path, but for the snapshot of the code, which is seen where the code is.
    """

    source: Path
    target: Path
    read_only: bool = False


@dataclass(frozen=True)
class ContainerRun:
    """One container to be run.

    Attributes:
        command: what runs inside, without the guard.
        working_dir: folder in which it starts.
        image: what the runtime calls it: ``repository@sha256:…``, ``sha256:…``, or a path. Empty
            without a container.
        name: of the container; unique for each attempt of each job.
        labels: to find it by.
        mounts: a mount stands before those below it.
        environment: variables of the stage, and no others.
        secrets: names of variables that are passed on without their values being written anywhere;
            the values are in the environment of the process that starts the container.
        uid: user id of the stage's processes.
        gids: group ids, the primary one first.
        cpus: number of CPUs, None for no limit.
        mem_gb: memory in GiB, None for no limit.
        shm_gb: size of ``/dev/shm`` in GiB.
        gpus: ids of the GPUs allocated, as the host's driver counts them (``"0"``, or a UUID).
        visible_gpus: how a process on the host names them (``CUDA_VISIBLE_DEVICES`` of the job);
            under a device cgroup these count from 0. None: the same as ``gpus``.
        num_nodes: more than one asks for the host's network and RDMA devices.
        devices: further device nodes, such as ``/dev/infiniband``.
        stop_grace_s: seconds between SIGTERM and SIGKILL.
        guard: file of the guard on the host, for a stage that runs there.
        terminal: whether standard input and output are a terminal.
        orders: named pipe, as the container sees it, whose end tells the guard that whoever is at
            that terminal is gone. A client that is killed tells its daemon nothing of the kind.
        used: file in which the guard is to leave what the stage used, see ``meter.py``.
    """

    command: tuple[str, ...]
    working_dir: Path
    image: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    uid: int = 0
    gids: tuple[int, ...] = (0,)
    cpus: int | None = None
    mem_gb: float | None = None
    shm_gb: float = 8.0
    gpus: tuple[str, ...] = ()
    visible_gpus: tuple[str, ...] | None = None
    num_nodes: int = 1
    devices: tuple[Path, ...] = ()
    stop_grace_s: float = 10.0
    guard: Path = Path(guard.__file__)
    terminal: bool = False
    orders: Path | None = None
    used: Path | None = None


class Container(Protocol):
    """One runtime with its settings.

    The process that :meth:`command` starts takes SIGTERM as the wish to stop, stops by itself at
    the end of its standard input, and leaves nothing behind when it ends. Its exit status is that
    of the stage's command.
    """

    name: str
    image_format: ImageFormat
    features: frozenset[Feature]

    @property
    def interpreter(self) -> str:
        """The Python that runs the recipe, as named where the stage runs."""

    def command(self, run: ContainerRun) -> list[str]:
        """Return the host's command line. Pure: it depends on its argument and the settings."""

    def client_environment(self, run: ContainerRun, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the process that :meth:`command` starts. Pure.

        Args:
            run: the container to be run.
            inherited: the job's environment; the values of the secrets are taken from it.
        """

    def problem(self) -> str | None:
        """Say why the runtime does not work on this machine; None when it does. Bounded in time."""

    def version(self) -> str:
        """Return the runtime's version on this machine, such as ``docker 28.2.2``."""

    def remove(self, name: str) -> None:
        """End and remove the container of that name, where there (still) is one."""


@dataclass(frozen=True)
class FoundContainer:
    """A container in a runtime's store.

    Attributes:
        name: of the container.
        labels: that it was given.
        uid: user id of its processes, where that says whose it is; None in a user's own store.
        is_running: whether it runs.
    """

    name: str
    labels: Mapping[str, str]
    uid: int | None = None
    is_running: bool = False


@runtime_checkable
class LabelledContainers(Protocol):
    """What a runtime has besides when a container of it does not depend on who started it."""

    def labelled(self, label: str) -> Sequence[FoundContainer]:
        """Return the containers that have a label, be they running or not.

        Empty where the runtime is not installed.

        Raises:
            LauncherError: it does not answer.
        """


def guarded(run: ContainerRun, interpreter: str) -> list[str]:
    """Return what runs inside a container: the command under the guard, its entry process.

    The guard's interpreter is isolated: no PYTHONPATH of the stage's may put itself before the
    standard library.
    """
    options = ["--terminal"] if run.terminal else []
    options += ["--orders", str(run.orders)] if run.orders is not None else []
    guard_command = [interpreter, "-IS", str(INSIDE / "guard.py"), *options]
    return [*guard_command, *guard_arguments(run)]


def guard_arguments(run: ContainerRun) -> list[str]:
    """Return what follows the guard, and ``--terminal``: what to leave where, and the command."""
    measured = [] if run.used is None else ["--used", str(run.used)]
    return [*measured, f"{run.stop_grace_s:g}", *run.command]
