"""The launcher is killed at each point of a submission: all of the chain runs, or none of it.

A command of SLURM's kills the launcher that called it, before it does what it was called for or
after. Until then nothing of the chain has run; from the release on, all of it does.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from tests.cluster.faults.table import LAUNCHER_KILLED
from tests.cluster.slurm_launches import Site, SlurmLaunch, until, wrap_commands
from tests.cluster.test_slurm_faults import ended

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(LAUNCHER_KILLED)]
STAGES = ("report", "train", "score")
KILL = "kill -KILL $PPID"


def launch_and_kill(site: Site, folder: Path, **wrapped: str) -> SlurmLaunch:
    path = {"PATH": f"{wrap_commands(folder, **wrapped)}:{os.environ['PATH']}"}
    options = ["--cluster", "slurm", "--container", "none", "launch_name=killed"]
    done = site.run(*options, "--stages", *STAGES, environment=path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    records = LaunchRecords(site.recipe / ".launches" / "killed")
    launch = SlurmLaunch(site.slurm, site.recipe, records)
    site.launches.append(launch)
    return launch


def cancelled(site: Site, launch: SlurmLaunch) -> None:
    """See that what is left of a chain that never ran is cancelled, all of it."""
    time.sleep(1.5)  # SLURM looks for what may start once a second
    assert not any(launch.noted(stage) for stage in STAGES)
    done = site.run("cancel")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: not site.queued(), 20, "that its jobs leave the queue")
    assert set(launch.states()) == {"cancelled"}
    assert not any(launch.noted(stage) for stage in STAGES)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_at_a_submission_nothing_runs(site: Site, tmp_path: Path, number: int, when: str) -> None:
    count, sbatch = tmp_path / "count", shutil.which("sbatch")
    kill = f'{sbatch} "$@" >&2; {KILL}' if when == "after" else KILL
    counted = f"echo x >> {count}; [ $(grep -c x {count}) -lt {number} ] || {{ {kill}; exit; }}"
    asks_only = 'case "$*" in *--test-only*) ;;'
    launch = launch_and_kill(site, tmp_path, sbatch=f"{asks_only} *) {counted};; esac")
    assert len(site.queued()) == number - (when == "before")
    whole = "the launcher ended before the whole chain was submitted"
    submitted = [f"{whole}; held", f"{whole}; waits for report"][: number - 1]
    left = ["the launcher ended before it was submitted"] * (3 - len(submitted))
    assert [each.reason for each in launch.status().values()] == [*submitted, *left]
    assert left[0] in site.run("status").stdout
    cancelled(site, launch)


def test_before_the_release_nothing_runs(site: Site, tmp_path: Path) -> None:
    launch = launch_and_kill(site, tmp_path, scontrol=f'[ "$1" != release ] || {{ {KILL}; exit; }}')
    assert len(site.queued()) == 3
    left = "the launcher ended before it let the chain start; held"
    assert left in site.run("status").stdout
    cancelled(site, launch)


def test_after_the_release_all_of_it_runs(site: Site, tmp_path: Path) -> None:
    scontrol = shutil.which("scontrol")
    release = f'{scontrol} "$@"; {KILL}; exit'
    launch = launch_and_kill(site, tmp_path, scontrol=f'[ "$1" != release ] || {{ {release}; }}')
    assert ended(launch) == dict.fromkeys(STAGES, ("done", ""))
