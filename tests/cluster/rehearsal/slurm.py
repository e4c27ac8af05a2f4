"""A Slurm of one controller and three nodes with four fake GPUs each, without or with accounting.

Both may be up at once: each has its own ports, folders and names, and is chosen by SLURM_CONF.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from daemons import Daemon, answers, bring_up, running_pid, wait_until
from devices import GPUS_PER_NODE
from state import RehearsalError, State, make_folder, write, write_template


@dataclass(frozen=True)
class Cluster:
    """What tells the two Slurms from one another."""

    name: str
    nodes: tuple[str, ...]
    controller_port: int
    first_node_port: int
    # Slurm's own default ports stay free for an installation of the host's.


PLAIN = Cluster("rehearsal", ("n1", "n2", "n3"), 16817, 17001)
ACCOUNTED = Cluster("rehearsal-accounting", ("a1", "a2", "a3"), 16827, 17011)


def conf_path(state: State, cluster: Cluster) -> Path:
    """Return the file that SLURM_CONF has to name."""
    return state.conf / cluster.name / "slurm.conf"


def munge_socket(state: State) -> Path:
    """Return where the munged of both Slurms listens."""
    return state.run / "munge" / "socket"


def bring_up_munge(state: State) -> bool:
    """Start a munged with a key of its own; the host's stays as it is."""
    folder = make_folder(state.data / "munge", "munge", 0o700)
    make_folder(state.run / "munge", "munge")
    key = folder / "key"
    if not key.exists():
        key.touch(0o600)
        shutil.chown(key, "munge", "munge")
        key.write_bytes(os.urandom(128))
    listening = munge_socket(state)
    munged = Daemon(
        name="munged",
        command=[
            *("/usr/sbin/munged", "--foreground", f"--key-file={key}", f"--socket={listening}"),
            *(f"--pid-file={state.run}/munge/pid", f"--log-file={state.run}/munge/log"),
            f"--seed-file={folder}/seed",
        ],
        user="munge",
        ready=lambda: answers("munge", "--no-input", f"--socket={listening}"),
    )
    return bring_up(state, munged)


def address() -> tuple[str, str]:
    """Return where to serve, and the line of slurm.conf that has Slurm serve only there.

    Slurm 22.05 serves everywhere, to those who have the munge key, or only on the address of the
    host's name, which is on loopback on many hosts: 127.0.0.1, or Debian's 127.0.1.1.
    """
    try:
        own = socket.gethostbyname(socket.gethostname())
    except OSError:
        own = ""
    if own.startswith("127."):
        return own, "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"
    return "127.0.0.1", ""


def configure(state: State, cluster: Cluster, accounting: str = "") -> None:
    """Write the configuration unless a daemon runs by it.

    Args:
        state: where everything goes.
        cluster: which of the two.
        accounting: lines of slurm.conf that name the accounting storage.
    """
    if any(running_pid(state, name) is not None for name in _daemon_names(cluster)):
        return
    conf = conf_path(state, cluster)
    spool = make_folder(state.data / cluster.name)
    make_folder(conf.parent)
    make_folder(spool / "slurmctld", mode=0o700)
    listen, communication = address()
    last_node_port = cluster.first_node_port + len(cluster.nodes) - 1
    write_template(
        "slurm.conf",
        conf,
        cluster=cluster.name,
        host=socket.gethostname().partition(".")[0],
        address=listen,
        communication=communication,
        controller_port=cluster.controller_port,
        munge_socket=munge_socket(state),
        spool=spool,
        run=state.run,
        accounting=accounting,
        nodes=f"{cluster.nodes[0][0]}[1-{len(cluster.nodes)}]",
        node_ports=f"{cluster.first_node_port}-{last_node_port}",
    )
    write(conf.with_name("gres.conf"), f"Name=gpu File=/dev/fakegpu[0-{GPUS_PER_NODE - 1}]\n")


def bring_up_slurm(state: State, cluster: Cluster) -> bool:
    """Start the controller and the nodes; tell whether something had to be started."""
    conf = conf_path(state, cluster)
    environment = {"SLURM_CONF": str(conf)}
    controller = Daemon(
        name=f"{cluster.name}-slurmctld",
        command=["/usr/sbin/slurmctld", "-D", "-f", str(conf)],
        environment=environment,
        loopback_ports=(cluster.controller_port,),
        ready=lambda: answers("scontrol", "ping", environment=environment),
    )
    started = bring_up(state, controller)
    for offset, node in enumerate(cluster.nodes):
        slurmd = Daemon(
            name=f"{cluster.name}-slurmd-{node}",
            command=["/usr/sbin/slurmd", "-D", "-N", node, "-f", str(conf)],
            environment=environment,
            loopback_ports=(cluster.first_node_port + offset,),
            ready=lambda: True,
        )
        started |= bring_up(state, slurmd)
    if not wait_until(lambda: _usable(environment, cluster), 60):
        shown = _sinfo(environment, "--long", "--Node")
        raise RehearsalError(
            f"not every node of {cluster.name} is in service; logs are in {state.logs}\n{shown}"
        )
    return started


def cancel_all(state: State, cluster: Cluster) -> None:
    """End every job, and wait until none is left, so that no step outlives its slurmd."""
    environment = {**os.environ, "SLURM_CONF": str(conf_path(state, cluster))}
    if running_pid(state, f"{cluster.name}-slurmctld") is None:
        return

    def left() -> str:
        jobs = ["squeue", "--noheader", "--format=%i"]
        return subprocess.run(jobs, env=environment, capture_output=True, text=True).stdout.strip()

    if not left():
        return
    for state_name in ("PENDING", "RUNNING", "SUSPENDED"):
        answers("scancel", f"--state={state_name}", environment=environment)
    wait_until(lambda: not left(), 30)


def _daemon_names(cluster: Cluster) -> list[str]:
    slurmd_names = [f"{cluster.name}-slurmd-{node}" for node in cluster.nodes]
    return [f"{cluster.name}-slurmctld", *slurmd_names]


def _usable(environment: dict[str, str], cluster: Cluster) -> bool:
    states = _sinfo(environment, "--noheader", "--Node", "--partition=main", "--format=%t").split()
    return len(states) == len(cluster.nodes) and set(states) <= {"idle", "mix", "alloc", "comp"}


def _sinfo(environment: dict[str, str], *options: str) -> str:
    command = ["sinfo", *options]
    everything = {**os.environ, **environment}
    return subprocess.run(command, env=everything, capture_output=True, text=True).stdout
