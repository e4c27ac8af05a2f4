"""A shell in a stage: on this machine, without a container; and the line that srun gets."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.again.recorded_job import recorded_job
from launcher.containers.base import ContainerRun
from launcher.job.shell_job import SHELL, shell_job
from launcher.records import LaunchRecords
from launcher.shell import plan_shell, srun_line
from tests.launcher.conftest import Launcher
from tests.launcher.person import Person

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def launched(recipe_dir: Path, launcher: Launcher) -> LaunchRecords:
    """Return a launch of the tiny recipe on this machine, that has ended."""
    done = launcher(
        *("--recipe", str(recipe_dir), "--container", "none", "--stages", "prepare", "fit"),
        *("--follow", "env.COLOUR=green"),
    )
    assert done.returncode == 0, done.stderr
    (directory,) = (recipe_dir / ".launches").iterdir()
    return LaunchRecords(directory)


def events(records: LaunchRecords) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (records.directory / "events").iterdir()}


def test_a_command_runs_as_the_stage_does(launched: LaunchRecords, launcher: Launcher) -> None:
    before = events(launched)
    command = "import os, sys; print(os.getcwd(), os.environ['COLOUR']); sys.exit(7)"
    done = launcher("shell", "fit", str(launched.directory), "--", sys.executable, "-c", command)
    recipe_dir = launched.directory.parents[1]
    assert (done.returncode, done.stdout) == (7, f"{recipe_dir} green\n"), done.stderr
    assert events(launched) == before


def test_without_a_terminal_a_command_is_needed(
    launched: LaunchRecords, launcher: Launcher
) -> None:
    done = launcher("shell", "fit", str(launched.directory))
    assert done.returncode == 2
    assert "-m launcher shell fit -- nvidia-smi" in done.stderr
    done = launcher("shell", "prepare", "fit", str(launched.directory), "--", "true")
    assert (done.returncode, "of one stage" in done.stderr) == (2, True)


def test_the_recorded_job_is_the_one_that_was_submitted(
    launched: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")  # as on another machine
    recorded = {job["stage"]: job for job in launched.read_launch()["jobs"]}
    again = recorded_job(launched, "fit").to_record()
    for name in ("working_dir", "environment", "resources", "container", "mounts", "secrets"):
        assert again[name] == recorded["fit"][name], name


@pytest.fixture
def person(launched: LaunchRecords) -> Iterator[Person]:
    command = [sys.executable, "-m", "launcher", "shell", "fit", str(launched.directory)]
    # Away from the start-up files of whoever tests: a killed shell may leave locks behind.
    home = {"HOME": str(launched.directory)}
    environment = {**os.environ, **home, "PYTHONPATH": str(REPOSITORY)}
    with Person(command, cwd=launched.directory, env=environment) as person:
        person.reads("shell of stage fit in no container, on .*, no GPUs; exit ends it")
        yield person


def test_a_person_in_a_shell(person: Person) -> None:
    person.enter("echo the colour is $COLOUR, $((40 + 2))")
    person.reads("the colour is green, 42")
    person.enter("exit 3")
    assert person.leaves() == 3
    assert person.modes() == person.modes_before


@pytest.mark.parametrize("how", ["SIGKILL", "closed window"])
def test_nothing_outlives_a_shell(person: Person, how: str) -> None:
    person.enter("sleep 300 & echo the child is $!.")
    child = int(person.reads(r"the child is (\d+)\.")[1])
    if how == "closed window":
        person.close_window()
    else:
        person.process.send_signal(signal.SIGKILL)
    person.process.wait(30)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_shell_has_a_container_of_its_own(launched: LaunchRecords) -> None:
    job = recorded_job(launched, "fit")
    own = shell_job(job, (), is_terminal=True)
    assert isinstance(own.run, ContainerRun)
    assert own.run.command == SHELL
    assert own.run.name == f"{job.run.name}-shell-{os.getpid()}"
    assert own.run.labels["launcher.launch"] == launched.directory.name
    assert f'"pid": {os.getpid()}' in own.run.labels["launcher.shell"]
    assert own.run.used is None


def test_what_srun_gets(recipe_dir: Path, launcher: Launcher, tmp_path: Path) -> None:
    # Only planned: no SLURM answers here.
    from launcher.clusters.slurm import Settings
    from launcher.launch import Job
    from launcher.settings.resources import Resources
    from launcher.settings.stage import StageConfig

    settings = StageConfig(
        Resources(gpus_per_node=2, mem_gb=4, timeout_min=30),
        Settings(partition="main", srun_args=["--cpu-bind=none"], setup=["module load cuda"]),
        "auto",
        {},
    )
    run = ContainerRun(("python",), tmp_path)
    job = Job("fit", None, run, None, settings, None, tmp_path, (), tmp_path / "fit.out")
    records = LaunchRecords(tmp_path / "one")
    line = srun_line(records, job, ["nvidia-smi"], running_id=None, has_terminal=True)
    assert line[:3] == ["srun", "--quiet", "--pty"]
    asked = {"--partition=main", "--gpus-per-node=2", "--mem=4096M", "--time=30"}
    assert asked <= set(line)
    assert "--job-name=shell.fit" in line
    assert "--cpu-bind=none" in line
    assert re.match("module load cuda\nexec", line[line.index("-c") + 1])
    assert line[-4:] == [str(records.directory), "fit", "--own", "nvidia-smi"]
    inside = srun_line(records, job, ["nvidia-smi"], running_id="7", has_terminal=False)
    assert inside[:4] == ["srun", "--quiet", "--jobid=7", "--overlap"]
    assert not any(each.startswith(("--partition", "--mem", "--own")) for each in inside)


def test_a_stage_of_this_machine_is_no_job_of_slurms(launched: LaunchRecords) -> None:
    plan = plan_shell(launched, "fit", ["true"], has_terminal=False)
    assert (plan.line, plan.is_inside) == ((), False)
