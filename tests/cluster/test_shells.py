"""A shell in a stage on a real SLURM: what it is given, what it obeys, and that nothing is left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.records import LaunchRecords
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.rehearsed import Rehearsal, Slurm
from tests.cluster.slurm_launches import until, write_recipe
from tests.cluster.test_container_launches import GPU, REPOSITORY, Launches, in_git, setting
from tests.conftest import HOSTILE_NAME
from tests.launcher.person import CTRL_C, Person

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
# The first has ended, the second runs for as long as there are tests.
ENDED, RUNNING = "report", "wait"
PATIENCE_S = 10.0
# Of a child that nothing but SIGKILL ends.
CHILD_S = 31536000

TELL = """\
import hashlib, json, os, sys
from pathlib import Path

environ = dict(os.environ)
token = hashlib.sha256(environ.pop("HF_TOKEN", "").encode()).hexdigest()
told = {"environ": environ, "token_sha256": token, "uid": os.getuid(), "cwd": os.getcwd()}
told["mounts"] = Path("/proc/self/mountinfo").read_text()
told["devices"] = os.listdir("/dev")
code = Path("src/tiny_system.py")
told["code"] = code.read_text()
try:
    code.open("a").close()
    told["errno"] = None
except OSError as error:
    told["errno"] = error.errno
print(json.dumps(told))
sys.exit(7)
"""


@dataclass
class Launched:
    """A launch of two stages on SLURM, of which one has ended and one runs.

    Attributes:
        secret: the value of HF_TOKEN at its submission, and for its shells.
    """

    launches: Launches
    records: LaunchRecords
    runtime: str
    slurm: Slurm
    secret: str

    @property
    def python(self) -> str:
        return sys.executable if self.runtime == "none" else "python"

    @property
    def environment(self) -> dict[str, str]:
        more = {"HF_TOKEN": self.secret, "NOT_ALLOWED": "to be seen"}
        return {**self.launches.environment, **more}

    def command(self, stage: str, *words: str) -> list[str]:
        return [
            *(sys.executable, "-m", "launcher", "shell", stage, str(self.records.directory)),
            *(["--", *words] if words else []),
        ]

    def job(self, stage: str) -> dict[str, Any]:
        """What is recorded of a stage's job."""
        found: dict[str, Any] = self.launches.metadata(stage)["job"]
        return found

    def tells(self, stage: str) -> dict[str, Any]:
        """Have a command tell what it sees."""
        done = subprocess.run(
            self.command(stage, self.python, "-c", TELL),
            cwd=self.launches.recipe,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 7, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def person(self, stage: str, *words: str) -> Person:
        command = self.command(stage, *words)
        return Person(command, cwd=self.launches.recipe, env=self.environment)

    def shells(self) -> dict[str, str]:
        """The jobs that were made for shells of this launch, and their states."""
        asked = ("squeue", "--noheader", "--name=shell.report", "--format=%i|%T|%Z")
        lines = [line.split("|") for line in self.slurm.run(*asked).splitlines()]
        ours = str(self.records.directory)
        return {job: state for job, state, where in lines if where == ours}

    def left(self) -> list[str]:
        """What there is of shells: jobs, containers, processes."""
        found = list(self.shells())
        if self.runtime == "docker":
            found += [name for name in self.containers("--all") if "-shell-" in name]
        # Of Podman, what is in its store counts for nothing: SLURM kills what would tell it of an
        # end, too. A container of it is a child of the job's, and seen here.
        marks = (b"launcher.job.shell_job", b"-shell-", b"exec bash -i", str(CHILD_S).encode())
        ours = self.records.directory.name.encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes()
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if ours in line + environ and any(mark in line for mark in marks):
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def containers(self, *options: str) -> list[str]:
        """The names of this launch's containers in Docker."""
        ask = ["docker", "ps", *options, "--format={{.Names}}"]
        done = subprocess.run(
            [*ask, f"--filter=label=launcher.launch={self.records.directory.name}"],
            env=self.launches.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    def nothing_is_left(self, since: float) -> None:
        until(lambda: not self.left(), max(since + PATIENCE_S - time.monotonic(), 0.1), "an end")
        reasons = self.slurm.run("sinfo", "--noheader", "--Node", "--format=%N %T %E")
        assert "Kill task failed" not in reasons, reasons
        assert not re.search(r"drain|down", reasons), reasons


def of(*runtimes: str) -> pytest.MarkDecorator:
    """Run a test with a launch of each of these runtimes; each launch serves the whole module."""
    return pytest.mark.parametrize("launched", runtimes, indirect=True, scope="module")


of_each = of("docker", "apptainer", "none", "podman")
# Podman's client treats a terminal as Docker's does.
of_each_terminal = of("docker", "apptainer", "none")


@pytest.fixture(scope="module")
def launched(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    rehearsal: Rehearsal,
    slurm: Slurm,
    cpu_image: CpuImage,
) -> Iterator[Launched]:
    runtime = request.param
    recipe = in_git(write_recipe(tmp_path_factory.mktemp(runtime) / HOSTILE_NAME))
    environment = {**os.environ, **rehearsal.environment, "PYTHONPATH": str(REPOSITORY)}
    launches = Launches(recipe, environment, cpu_image.lock_file, cpu_image.cache_dir)
    secret = f"hf_{secrets.token_hex(16)}"
    records = launches.launch(
        *("--cluster", "slurm", "--container", runtime, "--stages", ENDED, RUNNING),
        *([] if runtime == "none" else ["image=cpu"]),
        # This Docker knows no GPUs.
        *([] if runtime == "docker" else ["resources.gpus_per_node=2"]),
        *("env.COLOUR=green", setting("env.TINY_SLEEP_S", "600"), "env.SPACED='a, b=\"c\"'"),
        HF_TOKEN=secret,
        NOT_ALLOWED="to be seen",
    )
    try:
        noted = recipe / "exp" / "tiny" / "noted" / f"{RUNNING}.0.json"
        until(noted.exists, 90, f"the start of {RUNNING}")
        if runtime != "none":  # there stages see the tree as it is
            source = recipe / "src" / "tiny_system.py"
            source.write_text(source.read_text() + "# edited\n")
        yield Launched(launches, records, runtime, slurm, secret)
    finally:
        launches.close()


def mounts(mountinfo: str) -> dict[str, str]:
    """Return what is mounted, and whether it can be written, as proc(5) has it."""
    fields = [line.split() for line in mountinfo.splitlines()]
    return {each[4]: each[5].partition(",")[0] for each in fields}


def own_environment(told: dict[str, Any], runtime: str) -> dict[str, str]:
    """Return the variables that a stage and its shells have in common."""
    # Of the run, of the container, of the two commands that were typed.
    of_each = {"LAUNCHER_OUTPUT_INODE", "HOSTNAME"}
    if runtime == "none":  # where a stage has all that its job's processes have
        of_each |= {"PWD", "SHLVL", "_", "OLDPWD", "ENVIRONMENT", "LAUNCHER_SCRIPT_PARENT"}
    return {
        name: value
        for name, value in told["environ"].items()
        if name not in of_each and not name.startswith(("SLURM", "PYTEST_"))
    }


GPU_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
)


@of_each
@pytest.mark.parametrize("stage", [ENDED, RUNNING])
def test_a_command_sees_what_the_stage_sees(launched: Launched, stage: str) -> None:
    events = launched.records.events(stage)
    told, noted = launched.tells(stage), launched.launches.noted(stage)
    for name in ("uid", "cwd", "token_sha256"):
        assert told[name] == noted[name], name
    assert told["token_sha256"] == hashlib.sha256(launched.secret.encode()).hexdigest()
    assert mounts(told["mounts"]) == mounts(noted["mounts"])
    seen, of_stage = (own_environment(each, launched.runtime) for each in (told, noted))
    assert (seen["COLOUR"], seen["SPACED"]) == ("green", 'a, b="c"')
    gpus = [environment.pop(name, "") for environment in (seen, of_stage) for name in GPU_VARIABLES]
    assert seen == of_stage
    assert [len(each.split(",")) for each in gpus if each] == [2] * sum(map(bool, gpus))
    if stage == RUNNING:
        assert gpus[: len(GPU_VARIABLES)] == gpus[len(GPU_VARIABLES) :]
    if launched.runtime == "none":
        own_job = told["environ"]["SLURM_JOB_ID"] == launched.job(RUNNING)["job_id"]
        assert own_job == (stage == RUNNING)
        assert gpus[0]
    else:
        assert "NOT_ALLOWED" not in told["environ"]
        assert told["environ"]["HOME"] == str(launched.records.directory / "home")
        assert not told["code"].endswith("# edited\n")
        assert told["errno"] == errno.EROFS
    if launched.runtime == "podman":  # each by CDI
        devices = sorted(GPU.findall(" ".join(told["devices"])))
        assert len(devices) == 2
        assert stage == ENDED or devices == sorted(launched.job(stage)["gpus"])
    assert launched.records.events(stage) == events
    launched.nothing_is_left(time.monotonic())


@of_each_terminal
def test_a_person_in_the_running_job(launched: Launched) -> None:
    job = launched.job(RUNNING)
    image, gpus = job["image_verified"], ",".join(job["gpus"])
    inside = f"{launched.runtime}, {image}" if image else "no container"
    place = f"on {job['node']}, {f'GPUs {gpus}' if gpus else 'no GPUs'}"
    with launched.person(RUNNING) as person:
        person.reads(f"shell of stage {RUNNING} in {inside}, {place}; exit ends it")
        person.enter("stty size")
        person.reads(r"30 100\r")
        person.resize(41, 123)
        until(lambda: sized(person, "41 123"), 10, "the new size")
        person.enter("trap 'echo it $((40 + 2)) $LAUNCHER_LAUNCH_ID' INT")
        person.enter("echo at $((50 + 1)); sleep 300")
        person.reads("at 51")
        person.interrupts(f"it 42 {launched.records.directory.name}\r")
        assert not [each for each in command_lines() if launched.secret.encode() in each]
        person.enter("exit 3")
        assert person.leaves() == 3
        assert person.modes() == person.modes_before
    launched.nothing_is_left(time.monotonic())
    assert launched.launches.noted(RUNNING)
    assert [each["event"] for each in launched.records.events(RUNNING)][-1] == "started"


def sized(person: Person, size: str) -> bool:
    person.enter("stty size")
    try:
        person.reads(rf"{size}\r", 1)
    except AssertionError:
        return False
    return True


def command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            yield (entry / "cmdline").read_bytes()
        except OSError:
            continue


@of_each_terminal
def test_ctrl_c_is_for_the_command_alone(launched: Launched) -> None:
    code = (
        "import time\ntry:\n print('it', 'begins', flush=True)\n time.sleep(300)\n"
        "except KeyboardInterrupt:\n print('it', 'heard', flush=True)\n raise SystemExit(5)"
    )
    with launched.person(RUNNING, launched.python, "-c", code) as person:
        person.reads("it begins")
        person.type(CTRL_C)
        person.reads("it heard")
        assert person.leaves() == 5
    launched.nothing_is_left(time.monotonic())
    assert [each["event"] for each in launched.records.events(RUNNING)][-1] == "started"


@of_each
def test_nothing_outlives_what_ends_a_shell(launched: Launched) -> None:
    """Four shells at once, each with a child that nothing but SIGKILL ends."""
    ends: list[tuple[str, Callable[[Person, str], object]]] = [
        (ENDED, lambda person, _: person.process.kill()),
        (ENDED, lambda person, _: person.close_window()),
        (ENDED, lambda _, job: launched.slurm.run("scancel", job)),
        (RUNNING, lambda person, _: person.process.kill()),
    ]
    with ExitStack() as stack:
        shells = []
        for stage, end in ends:
            known = set(launched.shells())
            person = stack.enter_context(launched.person(stage))
            if stage == ENDED:
                until(lambda known=known: set(launched.shells()) - known, 30, "a job")
            (job,) = set(launched.shells()) - known or {""}
            shells.append((person, job, end))
        for person, _, _ in shells:
            person.reads("exit ends it")
            person.enter(f"(trap '' TERM HUP; exec setsid sleep {CHILD_S}) & echo it $((40 + 2))")
            person.reads("it 42")
        assert len(launched.shells()) == 3
        for person, job, end in shells:
            end(person, job)
        ended = time.monotonic()
        launched.nothing_is_left(ended)
        for person, _, _ in shells:
            person.process.wait(10)
    assert [each["event"] for each in launched.records.events(RUNNING)][-1] == "started"


@of("docker")
def test_a_shell_that_is_killed_as_it_starts(launched: Launched) -> None:
    """Its container, started by a daemon, runs already; nobody has said yet that it should."""
    before = launched.containers()
    with launched.person(ENDED) as person:
        until(lambda: launched.containers() != before, 30, "its container")
        person.process.kill()
        launched.nothing_is_left(time.monotonic())


@of_each
def test_a_shell_ends_with_the_job_that_it_is_in(launched: Launched) -> None:
    """The last of a launch's tests: afterwards nothing runs."""
    with launched.person(RUNNING) as person:
        person.reads("exit ends it")
        person.enter("echo it $((40 + 2))")
        person.reads("it 42")
        launched.slurm.run("scancel", str(launched.job(RUNNING)["job_id"]))
        ended = time.monotonic()
        person.leaves(PATIENCE_S)
        launched.nothing_is_left(ended)
    assert launched.launches.wait(launched.records)[RUNNING].state == "cancelled"
