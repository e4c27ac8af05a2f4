"""Lose nodes, as when machines lose their power: ``python3 …/lose_node.py n1``.

The node's slurmd and all that it runs of jobs are killed, and nothing of that has the time to say
so. SLURM takes half a minute to notice. ``up.py`` brings the node back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from daemons import running_pid
from slurm import ACCOUNTED, PLAIN, Cluster
from state import RehearsalError, State


def main(nodes: list[str]) -> int:
    """Lose the nodes that are named, or say what stands in the way."""
    try:
        state = State.of_environment()
        if os.geteuid() != 0:
            raise RehearsalError("the daemons are root's: run it as root")
        if not nodes:
            raise RehearsalError("name a node, such as n1")
        for node in nodes:
            num_processes = lose(state, node)
            print(f"{node} is lost: its slurmd and {num_processes} processes of jobs are killed")
    except RehearsalError as error:
        print(f"lose_node: {error}", file=sys.stderr)
        return 1
    return 0


def lose(state: State, node: str) -> int:
    """Kill a node; return how many processes of jobs it had.

    Raises:
        RehearsalError: there is no such node, or it does not run.
    """
    cluster = next((each for each in (PLAIN, ACCOUNTED) if node in each.nodes), None)
    if cluster is None:
        raise RehearsalError(f"there is no node {node}: {', '.join(PLAIN.nodes + ACCOUNTED.nodes)}")
    slurmd = running_pid(state, f"{cluster.name}-slurmd-{node}")
    if slurmd is None:
        raise RehearsalError(f"{node} does not run; `make cluster-up` brings it back")
    dying: set[int] = set()
    # What is stopped can neither clean up, nor tell of the others' end, nor start another.
    while found := {slurmd, *processes(state, cluster, node)} - dying:
        dying |= found
        send(signal.SIGSTOP, found)
    # The nodes share a Docker daemon, which knows nothing of their power.
    if containers := [name for pid in dying if (name := container_of(pid))]:
        subprocess.run(["docker", "kill", *containers], capture_output=True, check=False)
    send(signal.SIGKILL, dying)
    return len(dying) - 1


def processes(state: State, cluster: Cluster, node: str) -> set[int]:
    """Return what the jobs of a node run there, and the daemons that stand over their steps."""
    name = f"SLURMD_NODENAME={node}".encode()
    sockets = state.data / cluster.name / f"slurmd-{node}"
    lines = Path("/proc/net/unix").read_text().splitlines()
    inodes = {line.split()[6] for line in lines if f" {sockets}/{node}_" in line}
    found = {pid for pid in pids() if name in read(pid, "environ").split(b"\0")}
    found |= {pid for pid in pids() if is_step_daemon(pid) and inodes & open_sockets(pid)}
    # Not all inherit the environment: a client of Docker's has a short one.
    while children := {pid for pid in pids() if parent(pid) in found} - found:
        found |= children
    return found


def is_step_daemon(pid: int) -> bool:
    """Tell a slurmstepd, which is not known by its environment: that is its slurmd's."""
    return read(pid, "cmdline").startswith(b"slurmstepd: [")


def open_sockets(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def container_of(pid: int) -> str:
    """Return the name of the container that a client of Docker's stands for, else nothing."""
    words = os.fsdecode(read(pid, "cmdline")).split("\0")
    names = [word.removeprefix("--name=") for word in words if word.startswith("--name=")]
    return names[0] if names and words[:2] == ["docker", "run"] else ""


def parent(pid: int) -> int:
    """Return the parent of a process; 0 where it is gone."""
    # proc(5): the name, in parentheses, may hold anything; then come the state and the parent.
    return int((read(pid, "stat").rpartition(b")")[2].split() or [b"", b"0"])[1])


def pids() -> list[int]:
    """Return all processes, but for this one."""
    numbers = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    return [pid for pid in numbers if pid != os.getpid()]


def read(pid: int, name: str) -> bytes:
    """Return what the kernel tells of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def send(signum: int, processes: set[int]) -> None:
    """Send a signal to those that are still there."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
