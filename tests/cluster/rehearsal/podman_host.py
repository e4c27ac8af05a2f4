"""Settings with which plain ``podman`` works on a host without systemd."""

from __future__ import annotations

from daemons import answers
from docker_host import REGISTRY
from state import State, make_folder, write, write_template


def configure_podman(state: State) -> None:
    """Write Podman's three configuration files."""
    folder = make_folder(state.conf / "podman")
    write_template("containers.conf", folder / "containers.conf")
    write_template(
        "storage.conf",
        folder / "storage.conf",
        graph_root=make_folder(state.data / "podman", mode=0o711),
        run_root=state.run / "podman",
    )
    write(folder / "registries.conf", f'[[registry]]\nlocation = "{REGISTRY}"\ninsecure = true\n')


def remove_containers(state: State) -> None:
    """Remove root's containers: no daemon of Podman's would do that."""
    if (state.conf / "podman" / "storage.conf").exists():
        remove = ("podman", "rm", "--force", "--time=2", "--all")
        answers(*remove, environment=podman_environment(state))


def podman_environment(state: State) -> dict[str, str]:
    """Return the variables that point Podman to them."""
    folder = state.conf / "podman"
    return {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
