"""The Docker daemon is killed or restarted while a stage runs in a container of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.table import DOCKERD
from tests.cluster.rehearsed import Rehearsal
from tests.cluster.slurm_launches import until
from tests.cluster.test_container_launches import Launches, launches  # noqa: F401  a fixture
from tests.conftest import REPOSITORY, lacks

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def dockerd(rehearsal: Rehearsal) -> Iterator[int]:
    """Return the process of the rehearsal's own daemon; it is up again afterwards."""
    folder = Path(os.environ.get("REHEARSAL_DIR") or "/var/lib/launcher-rehearsal")
    try:
        daemon = json.loads((folder / "run" / "dockerd.daemon.json").read_text())
    except FileNotFoundError:
        lacks("the Docker daemon here is the host's own, and is left alone")
    yield int(daemon["pid"])
    bring_back()


def bring_back() -> None:
    script = REPOSITORY / "tests" / "cluster" / "rehearsal" / "up.py"
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)


def stages_left(launches: Launches) -> list[str]:  # noqa: F811
    """Return the processes of the launches' containers, whoever stands over them."""
    names = {f"LAUNCHER_LAUNCH_ID={each.directory.name}".encode() for each in launches.made}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = set((process / "environ").read_bytes().split(b"\0"))
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if names & environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.faults(DOCKERD)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["wait", "hardened"])
def test_a_daemon_that_ends_is_the_reason_and_leaves_nothing(
    launches: Launches,  # noqa: F811
    dockerd: int,
    how: signal.Signals,
    stage: str,
) -> None:
    records = launches.launch("--container", "docker", "--stages", stage, "score", "stop_grace_s=2")
    noted = launches.recipe / f"exp/tiny/noted/{stage}.0.json"
    until(noted.exists, 60, "the start")
    os.kill(dockerd, how)
    until(lambda: not stages_left(launches), 30, "the end of the stage's processes")
    told = launches.wait(records)
    assert told[stage].state == "failed"
    assert "went away while the stage ran" in told[stage].reason
    assert told["score"].state == "skipped"
    assert launches.metadata(stage)["job"]["reason"] == told[stage].reason
    time.sleep(1)
    bring_back()
    until(lambda: not launches.containers(), 10, "that nothing of it is left")
