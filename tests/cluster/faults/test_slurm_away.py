"""SLURM's commands take too long: nothing is called failed for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.faults.table import SLURM_AWAY
from tests.cluster.slurm_launches import Site, wrap_commands

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.faults(SLURM_AWAY)
@pytest.mark.parametrize("slurm", ["accounting"], indirect=True)
@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_a_command_that_takes_too_long(
    site: Site, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.slurm.client.QUERY_TIMEOUT_S", 1.0)
    launch = site.launch("--stages", "train", "score", "cluster.sbatch.begin='now+1hour'")
    path = wrap_commands(tmp_path, **{command: "sleep 30"})
    if command == "sacct":  # it is asked for what squeue has forgotten
        path = wrap_commands(tmp_path, squeue="echo 'Invalid job id specified' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    told = launch.status()
    assert [each.state for each in told.values()] == ["pending", "pending"]
    assert told["train"].reason == "the scheduler does not answer"
