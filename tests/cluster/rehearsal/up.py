"""Bring up the rehearsal cluster: what ``make cluster-up`` runs.

Python's standard library is all that it needs. ACCOUNTING=yes in the environment adds a second
Slurm that keeps accounts, REHEARSAL_DIR names the folder that holds everything.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import apptainer
import devices
import docker_host
import packages
import slurm
from accounting import bring_up_accounting
from environment import write_environment
from podman_host import configure_podman
from state import RehearsalError, State


def main() -> int:
    """Bring everything up, or say what stands in the way."""
    try:
        accounting = yes_or_no("ACCOUNTING")
        state = State.of_environment()
        packages.assert_host()
        state.create()
        with state.locked():
            bring_up(state, accounting=accounting)
    except RehearsalError as error:
        print(f"cluster-up: {error}", file=sys.stderr)
        return 1
    print(f"up. Use it: . {state.root}/env.sh")
    if (state.root / "env-accounting.sh").exists():
        print(f"with accounts: . {state.root}/env-accounting.sh")
    return 0


def yes_or_no(name: str) -> bool:
    """Read a switch from the environment."""
    value = os.environ.get(name, "").strip().lower()
    if value not in {"", "no", "0", "yes", "1"}:
        raise RehearsalError(f"{name} is yes or no, not {value}")
    return value in {"yes", "1"}


def bring_up(state: State, *, accounting: bool) -> None:
    """Bring up whatever does not run yet, in the order of dependence."""
    state.create()  # once more: a `cluster-down` may have been waited for
    # Once asked for it stays, until `cluster-down`.
    accounting |= slurm.conf_path(state, slurm.ACCOUNTED).exists()
    wanted = packages.PACKAGES + packages.TEST_PACKAGES
    wanted += packages.ACCOUNTING_PACKAGES if accounting else []
    lacking = packages.missing(wanted)
    if lacking:
        names = f"packages {', '.join(lacking)}"
        step(names, lambda: packages.install(lacking, state.logs / "apt.log"))
    devices.bring_up_devices(state)
    step("docker", lambda: docker_host.bring_up_dockerd(state))
    step("registry", lambda: docker_host.bring_up_registry(state))
    step("munge", lambda: slurm.bring_up_munge(state))
    slurm.configure(state, slurm.PLAIN)
    step("slurm", lambda: slurm.bring_up_slurm(state, slurm.PLAIN))
    configure_podman(state)
    if accounting:
        step("slurm with accounts", lambda: bring_up_accounting(state))
    write_environment(state)
    # The last, because the rest is of use without it where Debian unstable cannot be reached.
    step("apptainer", lambda: apptainer.bring_up_apptainer(state))


def step(name: str, act: Callable[[], object]) -> None:
    """Do one thing, and print how long it took if there was something to do."""
    before = time.monotonic()
    if act() is not False:
        print(f"  {name} … {time.monotonic() - before:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
