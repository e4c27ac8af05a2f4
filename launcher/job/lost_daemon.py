"""That the daemon of a container went away while the stage ran: said as that, and nothing is left.

A Docker daemon that is killed takes its clients with it and leaves its containers: their standard
input is held open by containerd's shim, so that no guard sees its end (Docker 20.10). Their
processes are the user's, and are ended without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from launcher.containers.base import Container, ContainerRun, ImageFormat
from launcher.job.leftovers import carrying, end_left
from launcher.job.stage_files import OUTPUT_INODE

# What a client says whose daemon ends; its exit status is then this.
_CLIENT_FAILED = 125
_SAID = re.compile(
    r"error waiting for container|unexpected EOF|[Cc]annot connect to the Docker daemon"
    r"|connection (reset|refused)|error during connect"
)
_KILLED_OR_STOPPED = (137, 143)


def daemon_went_away(container: Container, exit_code: int, lines: Sequence[str]) -> str | None:
    """Say that a container ended with its daemon; None when it did not.

    Args:
        container: the runtime.
        exit_code: of its client, as a shell has it.
        lines: the last lines of the stage's output, in which the client's words stand.
    """
    if container.image_format is not ImageFormat.OCI:
        return None
    if exit_code == _CLIENT_FAILED:
        said = next((line for line in reversed(lines) if _SAID.search(line)), None)
        if said is not None:
            return f"the {container.name} daemon went away while the stage ran: {said}"
    if exit_code in _KILLED_OR_STOPPED and (problem := container.problem()) is not None:
        return f"{container.name} went away while the stage ran: {problem}"
    return None


def end_what_it_left(run: ContainerRun, inode: int) -> None:
    """End the processes of a container on this machine, whoever started them.

    Args:
        run: the container.
        inode: of the raw output of this run, by which its processes are known.
    """
    launch = run.environment.get("LAUNCHER_LAUNCH_ID", "")
    own = {os.fsencode(f"LAUNCHER_LAUNCH_ID={launch}"), os.fsencode(f"{OUTPUT_INODE}={inode}")}
    end_left(lambda: list(carrying(own)), ask=True)
