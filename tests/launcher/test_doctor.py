"""What ``doctor`` finds, and what it makes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.doctor.examine import run_checks, summary
from launcher.doctor.finding import FAIL, INFO, OK, WARN, Finding
from launcher.doctor.machine import clock_and_locks, existing, gpus, python, room
from launcher.doctor.slurm import node_findings, reach
from launcher.doctor.subject import Subject
from tests.launcher.conftest import Launcher

NODE = {"node": "n1", "free_bytes": 5 * 10**9, "time": 100.0, "runtime": ["apptainer 1.4.5"]}


@pytest.fixture
def subject(recipe_dir: Path) -> Subject:
    return Subject.of(str(recipe_dir), working_dir=recipe_dir, container="none")


def judged(**changed: object) -> dict[str, Finding]:
    at = {"before_s": 99.0, "after_s": 101.0, "delay_s": 0.1}
    told = {**NODE, **{name: each for name, each in changed.items() if name not in at}}
    at |= {name: float(str(each)) for name, each in changed.items() if name in at}
    return {each.topic: each for each in node_findings(told, **at)}


def test_a_node_that_is_as_it_should_be() -> None:
    assert {each.state for each in judged().values()} == {OK}
    assert "n1 sees the folder of launches" in judged()["shared files"].found


@pytest.mark.parametrize(("time_s", "apart"), [(90.0, "9.0 s"), (110.0, "9.0 s")])
def test_a_clock_that_is_apart_is_told(time_s: float, apart: str) -> None:
    found = judged(time=time_s)["node clock"]
    assert (found.state, apart in found.found) == (WARN, True)
    assert "NTP" in found.advice


def test_files_that_are_seen_late_and_a_runtime_that_is_not_there() -> None:
    assert judged(delay_s=8.0)["shared files"].state == WARN
    lacking = judged(runtime=None, runtime_problem="No such file: apptainer")
    assert lacking["node runtime"].state == WARN


def test_this_machine(subject: Subject) -> None:
    assert [each.state for each in python(subject)] == [OK]
    found = {each.topic: each for each in clock_and_locks(subject)}
    assert {name: each.state for name, each in found.items()} == {"clock": OK, "locks": OK}
    assert len([each for each in room(subject) if each.topic == "disk"]) == 5
    assert not list(existing(subject.launches_dir).glob(".doctor*"))


def test_a_full_disk_fails(subject: Subject, small_disk: Path) -> None:
    full = Subject(subject.recipe, subject.config, small_disk / "a", small_disk, small_disk)
    told = {each.found.partition(":")[0]: each for each in room(full)}
    assert told["launches"].state == FAIL
    assert "launcher clean" in told["launches"].advice


def test_gpus_matter_where_stages_ask_for_them(
    recipe_dir: Path, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [each.state for each in gpus(subject)] == [INFO]
    (recipe_dir / "conf" / "launch.yaml").write_text("resources: {gpus_per_node: 1}\n")
    asking = Subject.of(str(recipe_dir), working_dir=recipe_dir, container="none")
    assert [each.state for each in gpus(asking)] == [FAIL]


def test_slurm_that_is_not_there_matters_only_where_it_was_chosen(
    recipe_dir: Path, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [each.state for each in reach(subject)] == [INFO]
    chosen = Subject.of(str(recipe_dir), working_dir=recipe_dir, cluster="slurm")
    assert [each.state for each in reach(chosen)] == [FAIL]


def test_checks_run_at_once_and_one_that_hangs_is_left(subject: Subject) -> None:
    released = threading.Event()

    def hanging(_: Subject) -> Iterator[Finding]:
        yield Finding("first", OK, "seen")
        released.wait(60)

    def failing(_: Subject) -> Iterator[Finding]:
        raise OSError("the disk is on fire")
        yield

    begun_s = time.monotonic()
    found = run_checks([(hanging, 0.5), (hanging, 0.5), (failing, 30.0)], subject)
    released.set()
    assert time.monotonic() - begun_s < 20
    states = [each.state for each in found]
    assert states == [OK, FAIL, OK, FAIL, FAIL]
    assert found[1].found == "no answer within 0.5 s"
    assert "the disk is on fire" in found[4].found
    assert summary(found) == "3 fail, 0 warn, 2 ok"


def test_the_command(recipe_dir: Path, launcher: Launcher, tmp_path: Path) -> None:
    where = ("--recipe", str(recipe_dir))
    alone = {"PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none"}
    done = launcher("doctor", *where, "--container", "none", "--json", **alone)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["topic"]: each for each in json.loads(done.stdout)}
    assert found["docker"]["state"] == "info"
    assert found["SLURM"]["state"] == "info"
    shown = launcher("doctor", *where, "--container", "docker", **alone)
    assert shown.returncode == 1
    assert "fail  docker" in shown.stdout
    assert "there is no program 'docker' here. Install Docker" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("1 fail")


def test_nothing_of_a_check_is_left(recipe_dir: Path, subject: Subject) -> None:
    before = sorted(recipe_dir.iterdir())
    list(clock_and_locks(subject))
    assert sorted(recipe_dir.iterdir()) == before
