"""The environment in which the rehearsal cluster is used, for shells and for tests."""

from __future__ import annotations

import json
import shlex

import slurm
from daemons import running_pid
from docker_host import REGISTRY
from podman_host import podman_environment
from state import State, write


def write_environment(state: State) -> None:
    """Write env.sh, env-accounting.sh when that Slurm is up, and env.json, which holds both."""
    accounting = running_pid(state, f"{slurm.ACCOUNTED.name}-slurmctld") is not None
    shared = {
        "REHEARSAL_DIR": str(state.root),
        "REHEARSAL_REGISTRY": REGISTRY,
        # The registry has no TLS, which Docker and Podman are told by other means.
        "APPTAINER_NOHTTPS": "true",
    }
    shared |= podman_environment(state)
    clusters = {"env": slurm.PLAIN, **({"env-accounting": slurm.ACCOUNTED} if accounting else {})}
    variables = {
        name: {**shared, "SLURM_CONF": str(slurm.conf_path(state, cluster))}
        for name, cluster in clusters.items()
    }
    for name, values in variables.items():
        lines = [f"export {key}={shlex.quote(value)}" for key, value in values.items()]
        folder = shlex.quote(str(state.bin))
        lines.append(f'case ":$PATH:" in *:{folder}:*) ;; *) export PATH={folder}:"$PATH" ;; esac')
        write(state.root / f"{name}.sh", "\n".join(lines) + "\n")
    data = {
        "path": [str(state.bin)],
        "registry": REGISTRY,
        "environment": variables["env"],
        "environment_accounting": variables.get("env-accounting"),
    }
    write(state.root / "env.json", json.dumps(data, indent=2) + "\n")
