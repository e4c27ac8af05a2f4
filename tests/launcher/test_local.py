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

import pytest

from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus, chain_status

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


def child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


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
    assert done.stdout.splitlines()[2].endswith("after prepare")
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
    slip = launcher("status", name[:-1], cwd=recipe_dir)
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
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert said.startswith("cancelling the launch; Ctrl-C once more kills it")
    states = [status.state for status in chain_status(the_launch(recipe_dir))]
    assert states == ["cancelled"] * 3
    assert processes_of(recipe_dir) == []


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


def test_a_directory_that_cannot_be_written_is_the_reason(recipe_dir: Path, launcher) -> None:
    (recipe_dir / "exp").write_text("a file where a folder should be")
    done = launcher("--recipe", str(recipe_dir), "--stages", "fit", "--follow")
    assert done.returncode == 1
    assert "cannot write" in done.stdout
    assert "Traceback" not in done.stdout


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
