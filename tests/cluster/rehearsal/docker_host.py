"""A Docker daemon, unless the host has one, and an image registry on loopback."""

from __future__ import annotations

import subprocess

from daemons import Daemon, answers, bring_up, listens, running_pid
from state import State, make_folder, write

REGISTRY_PORT = 5000
# An image pushed to a registry of this name needs no TLS: Docker exempts loopback.
REGISTRY = f"localhost:{REGISTRY_PORT}"


def docker_answers() -> bool:
    """Tell whether a Docker daemon answers where clients look for it."""
    return answers("docker", "info")


def bring_up_dockerd(state: State) -> bool:
    """Start dockerd if none answers; a daemon of the host's is used as it is."""
    is_up = running_pid(state, "dockerd") is not None
    if not is_up and docker_answers():
        return False
    folder = make_folder(state.run / "docker", mode=0o711)
    if not is_up:  # who was killed leaves a number, and is believed to live until it is reaped
        for stale in (folder / "pid", folder / "containerd" / "containerd.pid"):
            stale.unlink(missing_ok=True)
    conf = state.conf / "dockerd.json"
    write(conf, "{}\n")  # or it reads the host's
    dockerd = Daemon(
        name="dockerd",
        command=[
            *("/usr/sbin/dockerd", f"--data-root={state.data}/docker"),
            *(f"--exec-root={folder}", f"--pidfile={folder}/pid", f"--config-file={conf}"),
        ],
        ready=docker_answers,
        stop_timeout_s=60,
    )
    return bring_up(state, dockerd)


def stop_containers(state: State) -> None:
    """Stop what runs in a daemon that was started here, which would wait longer for it."""
    if running_pid(state, "dockerd") is not None:
        listed = ["docker", "ps", "--quiet"]
        containers = subprocess.run(listed, capture_output=True, text=True).stdout.split()
        if containers:
            answers("docker", "stop", "--time=2", *containers)


def bring_up_registry(state: State) -> bool:
    """Start the registry; Debian's own configuration of it would demand a login."""
    conf = state.conf / "registry.yml"
    storage = make_folder(state.data / "registry", mode=0o700)
    if running_pid(state, "registry") is None:
        write(
            conf,
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: '{storage}'}}}}\n"
            f"http: {{addr: '127.0.0.1:{REGISTRY_PORT}'}}\n"
            "log: {level: warn}\n",
        )
    registry = Daemon(
        name="registry",
        command=["/usr/bin/docker-registry", "serve", str(conf)],
        loopback_ports=(REGISTRY_PORT,),
        ready=lambda: listens(REGISTRY_PORT),
    )
    return bring_up(state, registry)
