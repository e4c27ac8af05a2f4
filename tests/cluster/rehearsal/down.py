"""Take down the rehearsal cluster: what ``make cluster-down`` runs.

It stops the daemons that were started here and no others. Packages, what was downloaded and images
stay for the next time; PURGE=yes removes the whole folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import daemons
import devices
import docker_host
import podman_host
import slurm
from state import RehearsalError, State
from up import yes_or_no

# Of what the daemons keep, this stays: it is slow to make.
IMAGES = {"docker", "registry", "podman"}


def main() -> int:
    """Take everything down, or say what could not be."""
    try:
        purge = yes_or_no("PURGE")
        state = State.of_environment()
        if os.geteuid() != 0:
            raise RehearsalError("the daemons are root's: run it as root")
        if not state.lock.exists():
            print(f"there is no rehearsal cluster at {state.root}")
            return 0
        with state.locked():
            take_down(state)
            if purge:
                state.remove()
    except RehearsalError as error:
        print(f"cluster-down: {error}", file=sys.stderr)
        return 1
    print("down")
    return 0


def take_down(state: State) -> None:
    """End the jobs, stop the daemons in reverse, unmount, and forget what ran."""
    for cluster in (slurm.ACCOUNTED, slurm.PLAIN):
        slurm.cancel_all(state, cluster)
    docker_host.stop_containers(state)
    podman_host.remove_containers(state)
    for name in daemons.recorded(state):
        if daemons.stop(state, name):
            print(f"  stopped {name}")
    unmount_below(state.root)
    devices.take_down_devices(state)
    for name in ("env.sh", "env-accounting.sh", "env.json"):
        (state.root / name).unlink(missing_ok=True)
    data = [path for path in state.data.glob("*") if path.name not in IMAGES]
    for folder in (state.run, state.conf, state.logs, *data):
        shutil.rmtree(folder, ignore_errors=True)


def unmount_below(root: Path) -> None:
    """Unmount whatever is still mounted below a folder, the innermost first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # proc(5): blanks and backslashes in paths are written as octal numbers.
    points = [point.encode().decode("unicode_escape") for point in mounts]
    for point in reversed(points):
        if root in Path(point).parents:  # the folder itself may be a disk of its own
            subprocess.run(["umount", "--lazy", point], check=False)


if __name__ == "__main__":
    sys.exit(main())
