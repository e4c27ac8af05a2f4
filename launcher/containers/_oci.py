"""What Docker and Podman have in common: the options of ``run``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from launcher.containers._client import Answer, not_installed
from launcher.containers.base import ContainerRun, FoundContainer, Mount, guarded
from launcher.errors import LauncherError

_GIB = 2**30
_MEMLOCK = "--ulimit=memlock"


def run_options(run: ContainerRun, given: Sequence[str]) -> list[str]:
    """Return the options of ``docker run`` and ``podman run`` that both understand.

    Not among them are those of users, of GPUs, and of the environment.

    Args:
        run: the container to be run.
        given: the settings' own options. Of two ``--ulimit`` of one name, Podman takes both.
    """
    # RDMA pins memory; a daemon that may not raise limits is asked only where there is RDMA.
    wants_memlock = run.devices and not any(each.startswith(_MEMLOCK) for each in given)
    return [
        "--rm",
        "--interactive",  # the guard ends at the end of standard input
        *(["--tty"] if run.terminal else []),
        "--pull=never",  # the image was verified; another one must not come in its place
        "--log-driver=none",  # the job keeps the output; the node's disk does not fill with it
        f"--name={run.name}",
        *(f"--label={key}={value}" for key, value in run.labels.items()),
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--security-opt=label=disable",  # SELinux: the tree keeps its labels and is readable
        f"--stop-timeout={math.ceil(run.stop_grace_s)}",
        f"--workdir={run.working_dir}",
        *([f"--cpus={run.cpus}"] if run.cpus is not None else []),
        *([f"--memory={_bytes(run.mem_gb)}"] if run.mem_gb is not None else []),
        f"--shm-size={_bytes(run.shm_gb)}",
        *(["--network=host"] if run.num_nodes > 1 else []),
        *(f"--device={device}" for device in run.devices),
        *([f"{_MEMLOCK}=-1"] if wants_memlock else []),
        *(f"--mount={mount_option(mount)}" for mount in sorted_mounts(run.mounts)),
    ]


def environment_options(run: ContainerRun, *, leave_out: Sequence[str] = ()) -> list[str]:
    """Return ``--env=NAME=VALUE`` for the environment, and ``--env=NAME`` alone for secrets."""
    hidden = (*run.secrets, *leave_out)
    plain = [f"--env={key}={value}" for key, value in run.environment.items() if key not in hidden]
    return [*plain, *(f"--env={name}" for name in run.secrets)]


def image_and_command(run: ContainerRun, interpreter: str) -> list[str]:
    """Return what stands at the end: the image, its entrypoint taken away, and the command."""
    return ["--entrypoint=", run.image, *guarded(run, interpreter)]


def found_containers(
    ask: Callable[..., Answer], label: str, *, is_own_store: bool
) -> list[FoundContainer]:
    """Return the containers that have a label.

    Args:
        ask: asks the runtime's program.
        label: a name.
        is_own_store: whether nobody else's containers are in it.

    Raises:
        LauncherError: it does not answer.
    """
    listed = ask("ps", "--all", "--quiet", "--no-trunc", f"--filter=label={label}")
    if not_installed(listed, "", "") is not None:
        return []
    if not listed.ok:
        raise LauncherError(listed.error or "it does not say why")
    ids = listed.output.split()
    if not ids:
        return []
    # Its exit status tells that one of them has gone meanwhile; the others are shown.
    shown = ask("inspect", "--type=container", *ids)
    try:
        return [_found(each, is_own_store=is_own_store) for each in json.loads(shown.output)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LauncherError(shown.error or "it does not say what they are") from error


def _found(record: dict[str, Any], *, is_own_store: bool) -> FoundContainer:
    user = str(record["Config"].get("User") or "0").partition(":")[0]
    return FoundContainer(
        name=record["Name"].removeprefix("/"),
        labels=record["Config"].get("Labels") or {},
        uid=None if is_own_store else int(user) if user.isdigit() else -1,
        is_running=record["State"].get("Running") is True,
    )


def sorted_mounts(mounts: Sequence[Mount]) -> list[Mount]:
    """Return mounts in their order, but each before those below it."""
    return sorted(mounts, key=lambda mount: len(mount.target.parts))


def mount_option(mount: Mount, *, source: str = "source", target: str = "target") -> str:
    """Return the value of ``--mount``, a line of CSV, which has no character that it cannot hold.

    The three runtimes that have the option read it with Go's encoding/csv: a field with a comma, a
    quote or a line break is quoted, quotes in it doubled.
    """
    fields = ["type=bind", f"{source}={mount.source}", f"{target}={mount.target}"]
    fields += ["readonly"] if mount.read_only else []
    return ",".join(_csv_field(field) for field in fields)


def _csv_field(field: str) -> str:
    if not any(character in field for character in ',"\r\n'):
        return field
    return '"' + field.replace('"', '""') + '"'


def _bytes(gib: float) -> int:
    return round(gib * _GIB)
