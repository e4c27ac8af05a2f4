"""What tests of faults share: a recipe on this machine, and one on the rehearsal's SLURM."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.clusters.local import LocalCluster, Settings
from launcher.errors import RecordError
from launcher.records import LaunchRecords
from launcher.status import JobStatus, chain_status
from launcher.submission import cancel
from tests.cluster.faults.trainings import (  # noqa: F401  fixtures
    known_figures,
    recipe_with_data,
    trainings,
    undisturbed,
)
from tests.cluster.slurm_launches import REPOSITORY, until
from tests.conftest import HOSTILE_NAME
from tests.launcher.conftest import write_recipe as write_local_recipe


@dataclass(frozen=True)
class LocalSite:
    """A recipe of three stages, of which the first sleeps where ``TINY_SLEEP_S`` says so."""

    recipe: Path

    @property
    def exp_dir(self) -> Path:
        return self.recipe / "exp" / "tiny"

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m launcher`` in the recipe's folder."""
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            cwd=self.recipe,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def launch(self, *arguments: str, **variables: str) -> LaunchRecords:
        """Launch the recipe on this machine itself."""
        done = self.run("--container", "none", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return LaunchRecords(self.recipe / done.stdout.splitlines()[0].removeprefix("launch "))

    @property
    def launches(self) -> list[LaunchRecords]:
        folder = self.recipe / ".launches"
        return [LaunchRecords(each) for each in sorted(folder.iterdir())] if folder.exists() else []

    def until_running(self) -> None:
        until((self.exp_dir / "prepare.pid").exists, what="the first stage")

    def close(self) -> None:
        cluster = LocalCluster(Settings())
        for records in self.launches:
            with suppress(RecordError):  # one that a test has damaged
                stages = [job["stage"] for job in records.read_launch()["jobs"]]
                cancel(records, stages, cluster, force=True)


@pytest.fixture
def local_site(tmp_path: Path) -> Iterator[LocalSite]:
    """Return a recipe, in a folder with a hostile name, to be launched on this machine."""
    made = LocalSite(write_local_recipe(tmp_path / HOSTILE_NAME / "tiny" / "asr"))
    yield made
    made.close()


def ended(records: LaunchRecords, timeout_s: float = 60) -> dict[str, JobStatus]:
    """Wait until every stage of a launch on this machine has ended."""
    until(lambda: all(each.has_ended for each in chain_status(records)), timeout_s)
    return {status.stage: status for status in chain_status(records)}
