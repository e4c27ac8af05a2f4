"""Chains of real jobs on this machine, from a hostile path, the launcher gone after submission."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launcher.clusters.local import Settings, check_machine
from launcher.errors import ConfigError
from launcher.launch import Launch
from launcher.launches.claim_files import CLAIM, LOCK
from launcher.records import LAUNCH, LaunchRecords
from launcher.settings.resources import Resources
from launcher.status import JobStatus, chain_status
from tests.cluster.faults.table import CANCELLED, LAUNCHER_KILLED, PROCESS_KILLED

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ["prepare", "fit", "score"]


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def the_launch(recipe_dir: Path) -> LaunchRecords:
    (directory,) = (recipe_dir / ".launches").iterdir()
    return LaunchRecords(directory)


def wait_for_all(records: LaunchRecords) -> dict[str, JobStatus]:
    until(lambda: all(status.has_ended for status in chain_status(records)))
    return {status.stage: status for status in chain_status(records)}


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def child(pid: int) -> int:
    """Return the first child of a process, which may still be about to start it."""
    until(lambda: children(pid))
    return children(pid)[0]


def processes_of(recipe_dir: Path) -> list[int]:
    """Return the processes whose working directory is the recipe: its stages and their children."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == recipe_dir:
                found.append(int(entry.name))
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if runs(pid)]


@pytest.fixture
def sleeping(recipe_dir: Path, launcher) -> LaunchRecords:
    """Return a launch whose first stage sleeps, with a detached child, and the others wait."""
    done = launcher("--recipe", str(recipe_dir), TINY_SLEEP_S="60")
    assert done.returncode == 0, done.stderr
    records = the_launch(recipe_dir)
    until((recipe_dir / "exp" / "tiny" / "prepare.pid").exists)
    assert len(processes_of(recipe_dir)) >= 3  # guard, stage, its detached child
    return records


def test_a_chain_runs_on_without_its_launcher(recipe_dir: Path, launcher) -> None:
    start = time.monotonic()
    done = launcher(cwd=recipe_dir)
    assert done.returncode == 0, done.stderr
    assert "score            job" in done.stdout
    assert done.stdout.splitlines()[1] == "  on local, in no container"
    assert done.stdout.splitlines()[3].endswith("after prepare")
    records = the_launch(recipe_dir)
    assert time.monotonic() - start < 15  # and has not waited for the chain
    ended = wait_for_all(records)
    assert {status.state for status in ended.values()} == {"done"}
    exp_dir = recipe_dir / "exp" / "tiny"
    for stage in STAGES:
        assert (exp_dir / f"{stage}.log").exists()
        assert f"[START] stage: {stage}" in (exp_dir / f"{stage}.out").read_text()
    assert "preparing" in (exp_dir / "prepare.out").read_text()
    metadata = json.loads((exp_dir / "fit.metadata.json").read_text())
    assert metadata["job"]["SUBMITIT_LOCAL_JOB_ID"] == ended["fit"].job_id
    assert metadata["job"]["LAUNCHER_LAUNCH_ID"] == records.directory.name
    for before, after in itertools.pairwise(STAGES):
        waited_s = ended[after].started - ended[before].ended
        assert 0 <= waited_s < 0.5, "a stage starts as soon as the one before it is done"


def test_outputs_of_earlier_runs_are_kept_under_the_number_of_their_log(
    recipe_dir: Path, launcher
) -> None:
    for is_direct in (False, True, False, True):
        if is_direct:
            command = ["run.py", "--stages", "fit", "--training_config", "conf/training.yaml"]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            direct = subprocess.run([sys.executable, *command], cwd=recipe_dir, env=environment)
            assert direct.returncode == 0
        else:
            done = launcher("--recipe", str(recipe_dir), "--stages", "fit", "--follow")
            assert done.returncode == 0, done.stderr
    exp_dir = recipe_dir / "exp" / "tiny"
    names = {path.name for path in exp_dir.iterdir() if not path.name.startswith(".")}
    assert names == {
        *(f"fit{number}{kind}" for number in ("", 1, 2, 3) for kind in (".log", ".metadata.json")),
        *("fit1.out", "fit3.out"),
    }
    for number in (1, 3):  # a run's output names the same moment as its log
        first_record = (exp_dir / f"fit{number}.log").read_text().splitlines()[0]
        assert first_record in (exp_dir / f"fit{number}.out").read_text()


def test_a_failed_stage_skips_the_rest_and_says_why(recipe_dir: Path, launcher) -> None:
    done = launcher("--recipe", str(recipe_dir), "--follow", TINY_FAIL="1")
    assert done.returncode == 1
    assert "RuntimeError: the disk is on fire" in done.stdout
    ended = wait_for_all(the_launch(recipe_dir))
    assert (ended["prepare"].state, ended["prepare"].exit_code) == ("failed", 1)
    for stage in ("fit", "score"):
        assert (ended[stage].state, ended[stage].reason) == ("skipped", "prepare failed")
        assert not (recipe_dir / "exp" / "tiny" / f"{stage}.out").exists()


def test_results_are_shown_at_the_end(recipe_dir: Path, launcher) -> None:
    done = launcher("--follow", cwd=recipe_dir)
    assert done.returncode == 0, done.stderr
    assert "WER test 0.0 %" in done.stdout
    assert "exp/tiny/score.log" in done.stdout


def test_status_and_cancel_as_they_are_printed_at_submission(recipe_dir: Path, launcher) -> None:
    done = launcher(cwd=recipe_dir, TINY_SLEEP_S="60")
    assert done.returncode == 0, done.stderr
    typed = [shlex.split(line) for line in done.stdout.splitlines() if " -m launcher " in line]
    assert [command[3] for command in typed] == ["status", "cancel"]
    until((recipe_dir / "exp" / "tiny" / "prepare.pid").exists)
    running = launcher(*typed[0][3:], cwd=recipe_dir)
    assert re.search(r"^prepare  running .* exp/tiny/prepare.log$", running.stdout, re.MULTILINE)
    assert "prepare running: preparing" in running.stdout
    cancelled = launcher(*typed[1][3:], cwd=recipe_dir)
    assert cancelled.returncode == 0, cancelled.stdout
    assert "cancelling prepare, fit, score" in cancelled.stdout
    assert re.search(r"^score    cancelled", cancelled.stdout, re.MULTILINE)
    ended = wait_for_all(the_launch(recipe_dir))
    assert {status.state for status in ended.values()} == {"cancelled"}
    until(lambda: not processes_of(recipe_dir))
    again = launcher("cancel", cwd=recipe_dir)  # the latest, which has ended
    assert again.returncode == 0
    assert "nothing to cancel" in again.stdout
    (name,) = (path.name for path in (recipe_dir / ".launches").iterdir())
    by_name = launcher("status", name, "--recipe", str(recipe_dir))
    assert "prepare  cancelled" in by_name.stdout
    slip = launcher("status", f"{name[:-1]}x", cwd=recipe_dir)
    assert slip.returncode == 2
    assert f"Did you mean '{name}'?" in slip.stderr


def hear_control_c() -> None:
    """Undo what a shell sets for tests in the background, which they would inherit: not to."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_control_c_right_after_the_first_line_cancels_the_launch(recipe_dir: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "launcher", "--follow"],
        cwd=recipe_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_SLEEP_S": "60"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_control_c,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("launch ")
        assert process.stdout.readline() == "  on local, in no container\n"
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert said.startswith("cancelling the launch; Ctrl-C once more kills it")
    states = [status.state for status in chain_status(the_launch(recipe_dir))]
    assert states == ["cancelled"] * 3
    assert processes_of(recipe_dir) == []


KILLED_WHILE_SUBMITTING = """\
import os, signal, sys
from launcher.cli import main
from launcher.clusters import local

moment = sys.argv.pop(1)

class Killed(local.LocalCluster):
    def submit(self, job, launch, records):
        self.die_at(f"before {job.stage}")
        return super().submit(job, launch, records)

    def release(self, records):
        self.die_at("released")

    def die_at(self, now):
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

local.Implementation = Killed
sys.exit(main(sys.argv[1:]))
"""


def killed_launch(recipe_dir: Path, moment: str) -> LaunchRecords:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SUBMITTING, moment],
        cwd=recipe_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return the_launch(recipe_dir)


@pytest.mark.faults(LAUNCHER_KILLED)
@pytest.mark.parametrize("moment", ["before fit", "before score"])
def test_a_chain_whose_submission_was_killed_runs_not_at_all(
    recipe_dir: Path, launcher, moment: str
) -> None:
    records = killed_launch(recipe_dir, moment)
    ended = wait_for_all(records)
    assert {status.state for status in ended.values()} <= {"cancelled", "skipped"}
    assert ended["prepare"].reason == "the launcher ended before the whole chain was submitted"
    assert ended["score"].reason == "the launcher ended before it was submitted"
    assert {path.name for path in (recipe_dir / "exp" / "tiny").iterdir()} == {CLAIM, LOCK}
    shown = launcher("status", cwd=recipe_dir).stdout
    assert re.search("^prepare  cancelled .*the launcher ended before the whole", shown, re.M)
    assert re.search("^score    (cancelled|skipped) .*the launcher ended before", shown, re.M)


@pytest.mark.faults(LAUNCHER_KILLED)
def test_a_chain_that_was_released_runs_whatever_becomes_of_its_launcher(recipe_dir: Path) -> None:
    ended = wait_for_all(killed_launch(recipe_dir, "released"))
    assert {status.state for status in ended.values()} == {"done"}


@pytest.mark.faults(CANCELLED)
def test_a_chain_goes_down_together(recipe_dir: Path, sleeping: LaunchRecords) -> None:
    """As when the machine stops: what only waited has not failed by itself."""
    pids = [int(event["job_id"]) for event in sleeping.events(LAUNCH) if "job_id" in event]
    guarded = [child(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in [*pids, *guarded]:
        os.kill(pid, signal.SIGKILL)
    ended = wait_for_all(sleeping)
    assert ended["prepare"].state == "failed"
    assert [(ended[stage].state, ended[stage].reason) for stage in ("fit", "score")] == [
        ("skipped", "prepare failed")
    ] * 2
    until(lambda: not processes_of(recipe_dir), timeout_s=10)


PRESSED_WHILE_SUBMITTING = """\
import os, signal, sys
from launcher.cli import main
from launcher.clusters import local

class Pressed(local.LocalCluster):
    def submit(self, job, launch, records):
        handle = super().submit(job, launch, records)
        if job.after is None:
            os.kill(os.getpid(), signal.SIGINT)
        return handle

local.Implementation = Pressed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_control_c_between_a_submission_and_its_record_cancels_the_launch(
    recipe_dir: Path, options: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRESSED_WHILE_SUBMITTING, *options],
        cwd=recipe_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_SLEEP_S": "60"},
        capture_output=True,
        text=True,
        preexec_fn=hear_control_c,
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert "cancelling" in done.stdout
    states = [status.state for status in chain_status(the_launch(recipe_dir))]
    assert states == ["cancelled"] * 3
    assert processes_of(recipe_dir) == []


@pytest.mark.faults(PROCESS_KILLED)
@pytest.mark.parametrize("victim", ["controller", "job", "guard", "stage"])
def test_sigkill_leaves_nothing_behind(
    recipe_dir: Path, sleeping: LaunchRecords, victim: str
) -> None:
    controller = int(sleeping.events(LAUNCH)[0]["job_id"])
    job = child(controller)
    victims = {"controller": controller, "job": job, "guard": child(job)}
    victims["stage"] = child(victims["guard"])
    os.kill(victims[victim], signal.SIGKILL)
    ended = wait_for_all(sleeping)
    assert ended["prepare"].state == "failed"
    assert "killed" in ended["prepare"].reason
    assert ended["fit"].reason == ended["score"].reason == "prepare failed"
    until(lambda: not processes_of(recipe_dir), timeout_s=10)
    metadata = json.loads((recipe_dir / "exp" / "tiny" / "prepare.metadata.json").read_text())
    if victim in ("guard", "stage"):  # the stage could say nothing: its job did
        assert (metadata["state"], metadata["exit"]["signal"]) == ("failed", "SIGKILL")
    else:  # stopped by its guard, it said so itself
        assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", "SIGTERM")


@pytest.mark.faults(PROCESS_KILLED)
def test_job_and_guard_killed_together_leave_nothing_behind(
    recipe_dir: Path, sleeping: LaunchRecords
) -> None:
    controller = int(sleeping.events(LAUNCH)[0]["job_id"])
    job, guard = (child(controller), child(child(controller)))
    os.kill(job, signal.SIGSTOP)  # neither sees the other go
    for pid in (guard, job):
        os.kill(pid, signal.SIGKILL)
    assert wait_for_all(sleeping)["prepare"].state == "failed"
    assert processes_of(recipe_dir) == []


def rewrite_stage(recipe_dir: Path, stage: str, *lines: str) -> None:
    """Have a stage do something else."""
    system = recipe_dir / "src" / "tiny_system.py"
    head, _, rest = system.read_text().partition(f"    def {stage}(self):\n")
    _, _, after = rest.partition("\n    def ")
    body = "".join(f"        {line}\n" for line in lines)
    tail = f"\n    def {after}" if after else ""
    system.write_text(f"{head}    def {stage}(self):\n{body}{tail}")


@pytest.fixture
def deaf(recipe_dir: Path, launcher) -> LaunchRecords:
    """Return a launch whose first stage ignores SIGTERM until it ends by itself, after 4 s."""
    rewrite_stage(
        recipe_dir,
        "prepare",
        "import signal",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "Path(self.exp_dir, 'prepare.pid').write_text(str(os.getpid()))",
        "time.sleep(float(os.environ.get('TINY_SLEEP_S', '4')))",
    )
    return LaunchRecords(recipe_dir / ".launches" / "deaf")


def start_deaf(deaf: LaunchRecords, launcher, *options: str, **variables: str) -> dict[str, int]:
    """Start it; return its processes once it is deaf."""
    recipe_dir = deaf.directory.parents[1]
    done = launcher("--recipe", str(recipe_dir), "launch_name=deaf", *options, **variables)
    assert done.returncode == 0, done.stderr
    until((recipe_dir / "exp" / "tiny" / "prepare.pid").exists)
    controller = int(deaf.events(LAUNCH)[0]["job_id"])
    job = child(controller)
    return {"controller": controller, "job": job, "guard": child(job)}


@pytest.mark.faults(CANCELLED)
@pytest.mark.parametrize(
    "suspended", [[], ["guard"], ["job", "guard"], ["controller"], ["killed controller"]]
)
def test_cancel_force_ends_a_stage_before_it_says_so(
    recipe_dir: Path, deaf: LaunchRecords, launcher, suspended: list[str]
) -> None:
    started = start_deaf(deaf, launcher, "stop_grace_s=300", TINY_SLEEP_S="300")
    for name in suspended:
        signum = signal.SIGKILL if "killed" in name else signal.SIGSTOP
        os.kill(started[name.split()[-1]], signum)
    done = launcher("cancel", "--force", cwd=recipe_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert processes_of(recipe_dir) == []
    told = {status.stage: (status.state, status.reason) for status in chain_status(deaf)}
    assert told == {
        "prepare": ("cancelled", "cancelled (killed by SIGKILL)"),
        "fit": ("cancelled", "cancelled before it started"),
        "score": ("cancelled", "cancelled before it started"),
    }
    metadata = json.loads((recipe_dir / "exp" / "tiny" / "prepare.metadata.json").read_text())
    assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", "SIGKILL")


def test_a_stage_outlives_the_controller_of_its_job(deaf: LaunchRecords, launcher) -> None:
    started = start_deaf(deaf, launcher)
    os.kill(started["controller"], signal.SIGKILL)
    until(lambda: not runs(started["controller"]))
    seen = []
    while not seen or seen[-1] != "done":
        assert seen in ([], ["running"] * len(seen))
        seen.append(chain_status(deaf)[0].state)
        time.sleep(0.02)
    assert len(seen) > 2
    assert {status.state for status in wait_for_all(deaf).values()} == {"done"}


@pytest.mark.parametrize("victims", [["job"], ["controller", "job", "guard"]])
def test_what_a_killed_job_leaves_open_is_closed(
    recipe_dir: Path, deaf: LaunchRecords, launcher, victims: list[str]
) -> None:
    """By its controller; where that was killed too, by the job of the next stage."""
    started = start_deaf(deaf, launcher, TINY_SLEEP_S="300")
    for name in victims:
        os.kill(started[name], signal.SIGSTOP)
    for name in victims:
        os.kill(started[name], signal.SIGKILL)
    ended = wait_for_all(deaf)
    assert (ended["prepare"].state, ended["fit"].state) == ("failed", "skipped")
    file = recipe_dir / "exp" / "tiny" / "prepare.metadata.json"
    until(lambda: json.loads(file.read_text())["state"] != "running")
    metadata = json.loads(file.read_text())
    assert metadata["state"] == "failed"
    assert "killed by SIGKILL" in metadata["exit"]["message"]
    (last,) = (each for each in deaf.events("prepare") if each["event"] == "ended")
    assert last["reason"] == ended["prepare"].reason
    until(lambda: not processes_of(recipe_dir), timeout_s=10)


def test_a_directory_that_cannot_be_written_is_the_reason(recipe_dir: Path, launcher) -> None:
    (recipe_dir / "exp").write_text("a file where a folder should be")
    done = launcher("--recipe", str(recipe_dir), "--stages", "fit", "--follow")
    assert done.returncode == 2
    assert "exp is not a folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (recipe_dir / ".launches").exists()


@pytest.fixture
def gpu_options(recipe_dir: Path, tmp_path: Path) -> list[str]:
    """Return a launch of one stage that needs two GPUs of four, and waits for a file to end."""
    rewrite_stage(
        recipe_dir,
        "fit",
        "assert os.environ['CUDA_DEVICE_ORDER'] == 'PCI_BUS_ID'",
        "print('GPUs', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)",
        "while not Path(self.exp_dir, 'end').exists(): time.sleep(0.05)",
    )
    return [
        *("--recipe", str(recipe_dir), "--stages", "fit"),
        *("cluster.gpus=[4,5,6,7]", f"cluster.gpu_locks={json.dumps(str(tmp_path / 'locks'))}"),
        "stages.fit.gpus_per_node=2",
    ]


def launches(recipe_dir: Path) -> list[LaunchRecords]:
    return [LaunchRecords(each) for each in sorted((recipe_dir / ".launches").iterdir())]


def gpus_of(recipe_dir: Path) -> list[str]:
    """Return the GPUs that each run of the stage was given, in no order."""
    outputs = (recipe_dir / "exp" / "tiny").glob("fit*.out")
    return sorted(re.findall(r"^GPUs (.*)$", "".join(each.read_text() for each in outputs), re.M))


def disclaim(recipe_dir: Path) -> None:
    """Have a further launch let into the folders of one that has not ended."""
    (recipe_dir / "exp" / "tiny" / CLAIM).unlink(missing_ok=True)


def test_a_stage_has_the_gpus_it_asks_for_and_no_other_has_them(
    recipe_dir: Path, launcher, gpu_options: list[str]
) -> None:
    for number in range(4):
        disclaim(recipe_dir)
        done = launcher(*gpu_options, f"launch_name=launch{number}")
        assert done.returncode == 0, done.stderr
        if number < 2:
            until(lambda: len(gpus_of(recipe_dir)) == number + 1)  # noqa: B023
    first, _, third, fourth = launches(recipe_dir)
    assert gpus_of(recipe_dir) == ["4,5", "6,7"]
    until(lambda: "GPUs" in chain_status(third)[0].reason)
    shown = launcher("status", "launch2", "--recipe", str(recipe_dir)).stdout
    assert re.search("^fit +pending .* waits for 2 GPUs$", shown, re.MULTILINE)
    until(lambda: "GPUs" in chain_status(fourth)[0].reason)
    cancelled = launcher("cancel", "launch3", "--recipe", str(recipe_dir))
    assert cancelled.returncode == 0
    assert re.search("^fit +cancelled", cancelled.stdout, re.M)
    assert chain_status(fourth)[0].reason == "cancelled before it started"
    # Its job is killed in a way that no handler sees: the stage holds the GPUs until it is gone.
    job = child(int(first.events(LAUNCH)[0]["job_id"]))
    os.kill(job, signal.SIGKILL)
    until(lambda: len(gpus_of(recipe_dir)) == 3)
    assert gpus_of(recipe_dir) in (["4,5", "4,5", "6,7"], ["4,5", "6,7", "6,7"])
    assert chain_status(first)[0].state == "failed"
    (recipe_dir / "exp" / "tiny" / "end").touch()
    assert wait_for_all(third)["fit"].state == "done"
    metadata = json.loads((recipe_dir / "exp" / "tiny" / "fit.metadata.json").read_text())
    assert metadata["job"]["gpus"] in (["4", "5"], ["6", "7"])


def test_a_gpu_is_not_given_away_before_the_stage_on_it_is_gone(
    recipe_dir: Path, launcher, gpu_options: list[str]
) -> None:
    """Its job is gone, and the stage takes its time to save its work."""
    rewrite_stage(
        recipe_dir,
        "fit",
        "Path(self.exp_dir, 'started').touch()",
        "try: time.sleep(60)",
        "except BaseException: time.sleep(1.5); Path(self.exp_dir, 'saved').touch(); raise",
    )
    options = [*gpu_options[:-1], "stages.fit.gpus_per_node=4"]
    assert launcher(*options, "launch_name=first").returncode == 0
    until((recipe_dir / "exp" / "tiny" / "started").exists)
    (first,) = launches(recipe_dir)
    rewrite_stage(recipe_dir, "fit", "return {'saved': Path(self.exp_dir, 'saved').exists()}")
    disclaim(recipe_dir)
    assert launcher(*options, "launch_name=second").returncode == 0
    second = launches(recipe_dir)[1]
    until(lambda: "GPUs" in chain_status(second)[0].reason)
    os.kill(child(int(first.events(LAUNCH)[0]["job_id"])), signal.SIGKILL)
    assert wait_for_all(second)["fit"].state == "done"
    metadata = json.loads((recipe_dir / "exp" / "tiny" / "fit.metadata.json").read_text())
    assert metadata["results"] == {"saved": True}


def test_locks_that_cannot_be_made_are_the_reason_of_the_stage(
    recipe_dir: Path, launcher, gpu_options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "locks").symlink_to(tmp_path)
    done = launcher(*gpu_options, "--follow")
    assert done.returncode == 1
    assert re.search(
        "^fit failed: cannot lock a GPU: .*/locks is a link.*gpu_locks", done.stdout, re.M
    )


def one_job(gpus: list[str] | None = None, **resources: float) -> Launch:
    """Return a launch of which only the resources are known."""
    settings = SimpleNamespace(resources=Resources(**resources), cluster=Settings(gpus=gpus))
    job = SimpleNamespace(stage="fit", settings=settings)
    return cast(Launch, SimpleNamespace(jobs=[job]))


@pytest.mark.parametrize(
    ("resources", "what"),
    [
        ({"gpus_per_node": 3, "gpus": ["4", "5"]}, "has 2 GPUs to give: cluster.gpus=[4,5]"),
        ({"gpus_per_node": 2}, "has 1 GPUs to give: CUDA_VISIBLE_DEVICES=7"),
        ({"nodes": 2}, "is one node"),
        ({"cpus_per_task": 4000}, f"has {len(os.sched_getaffinity(0))} CPUs"),
        ({"mem_gb": 4000}, "GiB of memory"),
    ],
)
def test_more_than_the_machine_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], what: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(ConfigError) as caught:
        check_machine(one_job(**resources), "debug")
    key = next(iter(resources))
    asked = f"fit asks for {key}={resources[key]}, and cluster debug, this machine, "
    assert str(caught.value).startswith(asked)
    assert what in str(caught.value)
    assert f"stages.fit.{key}=…" in str(caught.value)


def test_as_much_as_the_machine_has_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        check_machine(one_job(mem_gb=4000), "local")
    mem_gb = float(re.search(r"has ([\d.]+) GiB", str(caught.value))[1])
    num_cpus = len(os.sched_getaffinity(0))
    check_machine(one_job(["0", "1"], gpus_per_node=2, mem_gb=mem_gb, cpus_per_task=num_cpus), "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match=r"no GPUs that nvidia-smi lists; cluster.gpus=\[0,1\]"):
        check_machine(one_job(gpus_per_node=1), "local")


def test_a_refusal_leaves_nothing_behind(recipe_dir: Path, launcher) -> None:
    done = launcher("--recipe", str(recipe_dir), "stages.fit.gpus_per_node=3", "cluster.gpus=[4,5]")
    assert done.returncode == 2
    assert "fit asks for gpus_per_node=3, and cluster local, this machine, has 2" in done.stderr
    assert not (recipe_dir / ".launches").exists()


def test_there_is_no_limit_of_two_minutes(sleeping: LaunchRecords) -> None:
    controller = Path("/proc", sleeping.events(LAUNCH)[0]["job_id"])
    environment = (controller / "environ").read_bytes().split(b"\0")
    limit_s = next(int(each.partition(b"=")[2]) for each in environment if b"_TIMEOUT_S=" in each)
    assert limit_s > 365 * 24 * 3600
    os.kill(int(controller.name), signal.SIGKILL)


def test_code_that_was_edited_while_a_job_waited_is_named(recipe_dir: Path, launcher) -> None:
    """Without a container stages run from the tree: what they ran is to be found out later."""
    gate = "while not Path(self.exp_dir, 'gate').exists(): time.sleep(0.05)"
    rewrite_stage(recipe_dir, "prepare", gate)
    names = ["a b.yaml", "new\nline.yaml", "quo\"te'.yaml", "gone.yaml", "%j:é.yaml", "same.yaml"]
    hostile = [os.fsencode(recipe_dir) + b"/conf/" + each.encode() for each in names]
    hostile.append(os.fsencode(recipe_dir) + b"/conf/broken\xff.yaml")
    for path in hostile:
        Path(os.fsdecode(path)).write_text("before: 1\n")
    assert launcher("--recipe", str(recipe_dir)).returncode == 0
    records = the_launch(recipe_dir)
    until(lambda: chain_status(records)[0].state == "running")
    for path in hostile:
        if not path.endswith(b"same.yaml"):
            Path(os.fsdecode(path)).write_text("after: 22\n")
    (recipe_dir / "conf" / "gone.yaml").unlink()
    (recipe_dir / "run.py").chmod(0o755)
    (recipe_dir / "exp" / "tiny" / "gate").touch()
    assert {each.state for each in wait_for_all(records).values()} == {"done"}
    exp_dir = recipe_dir / "exp" / "tiny"
    metadata = {
        stage: json.loads((exp_dir / f"{stage}.metadata.json").read_text())["job"]["code_changed"]
        for stage in STAGES
    }
    expected = [
        *("conf/%j:é.yaml", "conf/a b.yaml", "conf/broken\\xff.yaml", "conf/gone.yaml (deleted)"),
        *("conf/new\\nline.yaml", "conf/quo\"te'.yaml", "run.py"),
    ]
    assert sorted(metadata["fit"]) == expected
    assert metadata["score"] == metadata["fit"]
    assert metadata["prepare"] == []
    first = (exp_dir / "fit.out").read_text().splitlines()[0]
    said = "launcher: the code has changed since this launch was submitted: "
    assert first == said + ", ".join(metadata["fit"])
    assert "launcher:" not in (exp_dir / "prepare.out").read_text()


def test_a_snapshot_that_was_lost_stops_no_stage(recipe_dir: Path, launcher) -> None:
    gate = "while not Path(self.exp_dir, 'gate').exists(): time.sleep(0.05)"
    rewrite_stage(recipe_dir, "prepare", gate)
    assert launcher("--recipe", str(recipe_dir), "--stages", "prepare", "fit").returncode == 0
    records = the_launch(recipe_dir)
    until(lambda: chain_status(records)[0].state == "running")
    Path(records.read_launch()["snapshot"]["manifest"]).unlink()
    (recipe_dir / "exp" / "tiny" / "gate").touch()
    assert {each.state for each in wait_for_all(records).values()} == {"done"}
    output = (recipe_dir / "exp" / "tiny" / "fit.out").read_text()
    assert output.startswith("launcher: cannot tell whether the code has changed: ")


SHORT_MINUTES = """\
import sys
from dataclasses import replace
from launcher.cli import main
from launcher.clusters import local

class Short(local.LocalCluster):
    def submit(self, job, launch, records):
        resources = replace(job.settings.resources, timeout_min=0.04)
        return super().submit(
            replace(job, settings=replace(job.settings, resources=resources)), launch, records
        )

local.Implementation = Short
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_stage_that_runs_out_of_time(recipe_dir: Path, is_deaf: bool) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" if is_deaf else "pass"
    rewrite_stage(recipe_dir, "fit", deaf, "time.sleep(60)")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SHORT_MINUTES, "--follow", "stop_grace_s=1"],
        cwd=recipe_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - start < 30
    assert done.returncode == 1
    ended = wait_for_all(the_launch(recipe_dir))
    signum = "SIGKILL" if is_deaf else "SIGTERM"
    assert ended["prepare"].state == "done", "the wait for its turn is not counted"
    assert (ended["fit"].state, ended["fit"].reason) == (
        "failed",
        f"out of time: its limit is 0.04 min (killed by {signum})",
    )
    assert (ended["score"].state, ended["score"].reason) == ("skipped", "fit failed")
    metadata = json.loads((recipe_dir / "exp" / "tiny" / "fit.metadata.json").read_text())
    assert metadata["state"] == ("failed" if is_deaf else "interrupted")
    assert metadata["job"]["reason"] == ended["fit"].reason


def test_no_trace_of_submitit_outside_the_launch_directory(recipe_dir: Path, launcher) -> None:
    """submitit replaces %j in a folder's name, which would scatter its files."""
    before = set(recipe_dir.parents[1].parent.iterdir())
    temporary = recipe_dir.parent / "temporary"
    temporary.mkdir()
    command = ["--recipe", str(recipe_dir), "--stages", "fit", "--follow"]
    assert launcher(*command, TMPDIR=str(temporary)).returncode == 0
    assert list(temporary.iterdir()) == []
    assert set(recipe_dir.parents[1].parent.iterdir()) == before
    pickles = list((the_launch(recipe_dir).directory / "submitit").glob("*_submitted.pkl"))
    assert len(pickles) == 1
    assert stat.S_IMODE(pickles[0].stat().st_mode) == 0o600  # arguments are in it as they are
