"""``doctor`` and ``clean`` on the rehearsal cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.processes.identity import ProcessId
from tests.cluster.rehearsed import Rehearsal, Slurm
from tests.cluster.slurm_launches import write_recipe
from tests.conftest import HOSTILE_NAME

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / HOSTILE_NAME / "tiny" / "asr")


def examined(
    recipe: Path, environment: dict[str, str], *options: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "doctor", "--json", *options],
        cwd=recipe,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.startswith("["), done.stderr
    return done.returncode, {each["topic"]: each for each in json.loads(done.stdout)}


@pytest.mark.parametrize("slurm", ["plain", "accounting"], indirect=True)
def test_a_job_says_what_a_node_sees(recipe: Path, slurm: Slurm) -> None:
    options = ("--cluster", "slurm", "--container", "apptainer", "--job")
    status, found = examined(recipe, slurm.environment, *options)
    assert status == 0, found
    for topic in ("SLURM", "apptainer", "node clock", "shared files", "node runtime", "locks"):
        assert found[topic]["state"] in ("ok", "warn"), found[topic]
    assert "apptainer" in found["node runtime"]["found"]
    assert found["SLURM accounts"]["state"] == ("ok" if slurm.accounting else "info")
    assert not list((recipe / ".launches").iterdir())


def test_without_slurms_environment(recipe: Path, rehearsal: Rehearsal) -> None:
    environment = {"PATH": rehearsal.environment["PATH"], "SLURM_CONF": "/nowhere/slurm.conf"}
    status, found = examined(recipe, environment, "--container", "none")
    assert (status, found["SLURM"]["state"]) == (0, "info")
    status, found = examined(recipe, environment, "--container", "none", "--cluster", "slurm")
    assert (status, found["SLURM"]["state"]) == (1, "fail")


def test_a_daemon_that_does_not_answer(recipe: Path, rehearsal: Rehearsal, tmp_path: Path) -> None:
    environment = {**rehearsal.environment, "DOCKER_HOST": f"unix://{tmp_path}/none"}
    status, found = examined(recipe, environment, "--container", "docker")
    assert (status, found["docker"]["state"]) == (1, "fail")
    assert "its daemon does not answer" in found["docker"]["found"]
    status, found = examined(recipe, environment, "--container", "podman")
    assert (status, found["docker"]["state"]) == (0, "info")


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_clean_removes_a_container_that_nobody_stands_over(
    recipe: Path, rehearsal: Rehearsal, tiny_image: str, runtime: str
) -> None:
    environment = {**os.environ, **rehearsal.environment, "PYTHONPATH": str(REPOSITORY)}
    launches = recipe / ".launches"
    launches.mkdir()
    held = ProcessId.of(os.getpid()).to_record()
    names = {name: f"launcher-test-{os.getpid()}-{name}" for name in ("orphan", "held")}
    labels = {
        "orphan": [f"launcher.directory={launches / 'gone'}"],
        "held": [
            f"launcher.directory={launches / 'gone'}",
            f"launcher.shell={json.dumps(held)}",
        ],
    }

    def ask(*words: str) -> str:
        done = subprocess.run([runtime, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        for name, label in labels.items():
            ask(
                *("run", "--detach", f"--name={names[name]}", "--user=0:0", "--network=none"),
                *("--label=launcher.launch=gone", "--label=launcher.stage=fit"),
                *(f"--label={each}" for each in label),
                *(tiny_image, "sleep", "300"),
            )
        command = [sys.executable, "-m", "launcher", "clean"]
        done = subprocess.run(
            [*command, "--dry-run"], cwd=recipe, env=environment, capture_output=True, text=True
        )
        assert names["orphan"] in done.stdout
        assert names["held"] not in done.stdout
        done = subprocess.run(
            [*command, "--yes"], cwd=recipe, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        left = ask("ps", "--all", "--format={{.Names}}").split()
        assert names["orphan"] not in left
        assert names["held"] in left
    finally:
        subprocess.run(
            [runtime, "rm", "--force", *names.values()], env=environment, capture_output=True
        )
