"""Stages in this terminal and in a container: what is typed, and what is left whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from launcher.status import chain_status
from tests.cluster.faults.table import CANCELLED
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.rehearsed import Rehearsal
from tests.cluster.slurm_launches import until, write_recipe
from tests.conftest import HOSTILE_NAME
from tests.launcher.person import CTRL_BACKSLASH, Person

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIMES = ["docker", "podman", "apptainer", "charliecloud"]

Debug = Callable[..., Person]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe whose stage `report` stops at a breakpoint, a detached child beside it."""
    recipe = write_recipe(tmp_path / HOSTILE_NAME)
    system = recipe / "src" / "tiny_system.py"
    text = system.read_text()
    broken = text.replace(
        "        self.sleep_until_gate()\n        return",
        "        subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "        answer = 40\n        breakpoint()\n        print('the answer is', answer)\n"
        "        return",
    )
    assert broken != text
    system.write_text(broken)
    return recipe


@pytest.fixture
def environment(rehearsal: Rehearsal) -> dict[str, str]:
    return {**os.environ, **rehearsal.environment, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def debug(recipe: Path, environment: dict[str, str], cpu_image: CpuImage) -> Iterator[Debug]:
    """Return a function that has a person launch the recipe in the foreground, in a container."""
    persons: list[Person] = []

    def start(runtime: str, *options: str) -> Person:
        command = [sys.executable, "-m", "launcher", "--cluster", "debug", "--container", runtime]
        settings = [
            f"images_lock='{cpu_image.lock_file}'",
            f"image_cache='{cpu_image.cache_dir}'",
        ]
        stages = ["--stages", "report", "score"]
        persons.append(
            Person([*command, *stages, *settings, *options], cwd=recipe, env=environment)
        )
        persons[-1].reads(r"\(Pdb\) ", timeout_s=60)
        return persons[-1]

    yield start
    for person in persons:
        person.__exit__()


def left(recipe: Path, environment: dict[str, str]) -> list[str]:
    """Return what there is of the launch's containers and processes."""
    (launch,) = (recipe / ".launches").iterdir()
    found = []
    for engine in ("docker", "podman"):
        ask = [engine, "ps", "--all", f"--filter=label=launcher.launch={launch.name}"]
        asked = [*ask, "--format={{.Names}}"]
        done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
        found += done.stdout.split()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(recipe) in str((entry / "cwd").resolve()):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [] if state in "ZX" else [(entry / "cmdline").read_text()]
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return found


def ends(recipe: Path) -> list[tuple[str, str]]:
    (launch,) = (recipe / ".launches").iterdir()
    return [(each.state, each.reason) for each in chain_status(LaunchRecords(launch))]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_breakpoint_in_a_container(
    recipe: Path, environment: dict[str, str], debug: Debug, runtime: str
) -> None:
    person = debug(runtime)
    person.enter("p 1+1")
    person.reads("^2\r\n")
    person.enter("import os; p os.get_terminal_size().columns")
    person.enter("answer += 2")
    person.enter("c")
    person.reads("the answer is 42")
    person.reads("^report +done")
    person.reads("^score +done")
    assert person.leaves() == 0
    assert person.modes() == person.modes_before
    output = (recipe / "exp" / "tiny" / "report.out").read_bytes().decode()
    assert "(Pdb) p 1+1\r\n2\r\n" in output
    assert left(recipe, environment) == []


@pytest.mark.faults(CANCELLED)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ctrl_c_is_heard_in_a_container(
    recipe: Path, environment: dict[str, str], debug: Debug, runtime: str
) -> None:
    person = debug(runtime)
    person.interrupts("^report +cancelled")
    assert person.leaves() == 130
    assert ends(recipe) == [
        ("cancelled", "interrupted by Ctrl-C"),
        ("skipped", "report was cancelled"),
    ]
    assert left(recipe, environment) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ctrl_backslash_kills_in_a_container(
    recipe: Path, environment: dict[str, str], debug: Debug, runtime: str
) -> None:
    person = debug(runtime)
    person.type(CTRL_BACKSLASH)
    person.reads("report failed: killed by SIGQUIT")
    assert person.leaves() == 1
    assert left(recipe, environment) == []


@pytest.mark.faults(CANCELLED)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "closed window"])
def test_no_container_outlives_the_launcher(
    recipe: Path, environment: dict[str, str], debug: Debug, runtime: str, how: str
) -> None:
    person = debug(runtime)
    if how == "closed window":
        person.close_window()
    else:
        person.process.send_signal(signal.Signals[how])
    person.process.wait(60)
    until(lambda: not left(recipe, environment), 20, "that nothing is left")
    expected = "failed" if how == "SIGKILL" else "cancelled"
    assert [state for state, _ in ends(recipe)] == [expected, "skipped"]
    if how != "closed window":
        until(lambda: person.modes() == person.modes_before, 20, "a sane terminal")
