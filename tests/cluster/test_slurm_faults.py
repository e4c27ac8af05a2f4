"""What goes wrong overnight on a real SLURM: each chain ends, says why, and leaves nothing behind.

Those launches that take a minute by their nature are made at the beginning and run beside the rest.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.records import LAUNCH, LaunchRecords
from tests.cluster.faults.table import CANCELLED, LAUNCHER_KILLED, PROCESS_KILLED, SLURM_AWAY
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import Site, SlurmLaunch, until, wrap_commands, write_recipe
from tests.conftest import HOSTILE_NAME

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
NEVER = "cluster.sbatch.begin='now+1hour'"


@pytest.fixture(autouse=True)
def _of_this_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def site(slurm: Slurm, tmp_path: Path) -> Iterator[Site]:
    made = Site(slurm, write_recipe(tmp_path / HOSTILE_NAME / "tiny" / "asr"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def at_their_limit(
    slurm: Slurm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, SlurmLaunch]]:
    """Return launches whose first stage reaches its time limit of a minute, by what it does."""
    sites = []
    launches = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        for stage in ("wait", "deaf", "hardened"):
            folder = tmp_path_factory.mktemp(stage)
            sites.append(Site(slurm, write_recipe(folder / "tiny" / "asr")))
            limits = ["resources.timeout_min=1", "cluster.signal_delay_s=10"]
            launches[stage] = sites[-1].launch("--stages", stage, "score", *limits)
    yield launches
    for each in sites:
        each.close()


@pytest.fixture(autouse=True)
def _begun(at_their_limit: dict[str, SlurmLaunch]) -> None:
    """Have the long launches begin with the first test."""


def left_running(launch: SlurmLaunch) -> list[str]:
    """Return what still runs of a launch's stages, job processes or scripts."""
    name = launch.records.directory.name.encode()
    folder = os.fsencode(launch.records.directory)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes()
            is_ours = b"LAUNCHER_LAUNCH_ID=" + name in environ and os.fsencode(launch.recipe) in (
                environ + os.fsencode((entry / "cwd").resolve())
            )
            if is_ours or folder + b"/submitit" in os.fsencode((entry / "cwd").resolve()):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append(f"{entry.name} {command}")
        except OSError:
            continue
    return found


def ended(launch: SlurmLaunch, timeout_s: float = 40) -> dict[str, tuple[str, str]]:
    """Wait for the end; return state and reason of each stage, and see that nothing is left."""
    told = launch.wait(timeout_s)
    until(lambda: not left_running(launch), 10, f"the end of {left_running(launch)}")
    by_records_alone = {stage: launch.recorded(stage) for stage in told}
    for stage, status in by_records_alone.items():
        if status.has_ended:
            assert (told[stage].state, told[stage].reason) == (status.state, status.reason)
    return {stage: (status.state, status.reason) for stage, status in told.items()}


def test_a_stage_that_fails(site: Site) -> None:
    done = site.run(
        *("--cluster", "slurm", "--container", "none", "--follow"),
        *("--stages", "fail", "score", "launch_name=fails"),
    )
    launch = named(site, "fails")
    assert done.returncode == 1
    assert "fail   failed" in done.stdout
    assert re.search(r"^score  skipped .*fail failed$", done.stdout, re.MULTILINE)
    assert "fail failed: exit status 3" in done.stdout
    assert "sys.exit(3) called in the stage" in done.stdout
    assert ended(launch) == {
        "fail": ("failed", "exit status 3"),
        "score": ("skipped", "fail failed"),
    }
    metadata = launch.metadata("fail")
    assert (metadata["state"], metadata["exit"]["status"]) == ("failed", 3)
    assert (metadata["job"]["exit_code"], metadata["job"]["signal"]) == (3, None)
    assert "the disk is on fire" in launch.file("fail", ".out").read_text()
    assert "[FAILED] stage: fail" in launch.file("fail", ".log").read_text()
    assert launch.scontrol("fail")["ExitCode"] == "3:0"
    score = launch.scontrol("score")
    assert (score["JobState"], score["Reason"]) == ("CANCELLED", "DependencyNeverSatisfied")
    assert not launch.file("score", ".out").exists()


def named(site: Site, name: str) -> SlurmLaunch:
    launch = SlurmLaunch(site.slurm, site.recipe, LaunchRecords(site.recipe / ".launches" / name))
    site.launches.append(launch)
    return launch


def test_a_stage_that_dies_by_a_signal(site: Site) -> None:
    launch = site.launch("--stages", "die", "score")
    assert ended(launch) == {
        "die": ("failed", "killed by SIGKILL"),
        "score": ("skipped", "die failed"),
    }
    metadata = launch.metadata("die")
    assert metadata["exit"]["signal"] == metadata["job"]["signal"] == "SIGKILL"
    assert metadata["job"]["exit_code"] == 137


@pytest.mark.faults(CANCELLED)
@pytest.mark.parametrize("force", [False, True])
def test_launcher_cancel_ends_what_runs_and_what_waits(site: Site, force: bool) -> None:
    launch = site.launch("--stages", "train", "wait", "score")
    launch.until_running("wait")
    done = site.run("cancel", *(["--force"] if force else []))
    assert done.returncode == 0, done.stdout + done.stderr
    verb = "killing" if force else "cancelling"
    assert f"{verb} wait, score" in done.stdout
    assert re.search(r"^wait   cancelled ", done.stdout, re.MULTILINE)
    assert re.search(r"^score  cancelled .*cancelled$", done.stdout, re.MULTILINE)
    told = ended(launch)
    assert told["train"] == ("done", "")
    how = f"cancelled (killed by {'SIGKILL' if force else 'SIGTERM'})"
    assert told["wait"] == ("cancelled", how)
    assert told["score"] == ("cancelled", "cancelled")
    assert launch.metadata("train")["state"] == "done"
    assert launch.metadata("wait")["state"] == "interrupted"
    assert launch.metadata("wait")["job"]["reason"] == how
    again = site.run("cancel")
    assert (again.returncode, "nothing to cancel" in again.stdout) == (0, True)


@pytest.mark.faults(CANCELLED)
def test_scancel_of_what_runs(site: Site, slurm: Slurm) -> None:
    launch = site.launch("--stages", "wait", "score")
    launch.until_running("wait")
    slurm.run("scancel", launch.ids["wait"])
    reason = "cancelled through SLURM (killed by SIGTERM)"
    assert ended(launch) == {
        "wait": ("cancelled", reason),
        "score": ("skipped", "wait was cancelled"),
    }
    metadata = launch.metadata("wait")
    assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", "SIGTERM")
    assert (metadata["job"]["reason"], metadata["job"]["exit_code"]) == (reason, 143)


@pytest.mark.faults(CANCELLED)
def test_a_stage_that_ignores_scancel_is_killed_and_on_record(site: Site, slurm: Slurm) -> None:
    """SLURM kills all of a job, its process too, KillWait after SIGTERM: here five seconds."""
    launch = site.launch("--stages", "hardened", "score")
    launch.until_running("hardened")
    slurm.run("scancel", launch.ids["hardened"])
    reason = "cancelled through SLURM (killed by SIGKILL)"
    assert ended(launch)["hardened"] == ("cancelled", reason)
    assert launch.recorded("hardened").exit_code == 137
    assert launch.metadata("hardened")["exit"]["signal"] == "SIGKILL"


@pytest.mark.faults(CANCELLED)
def test_what_waits_is_cancelled(site: Site, slurm: Slurm) -> None:
    by_launcher = site.launch("--stages", "train", "score", NEVER)
    waits = "in the queue until its time to begin"
    until(lambda: by_launcher.status()["train"].reason == waits)
    done = site.run("cancel")
    assert done.returncode == 0
    assert ended(by_launcher) == dict.fromkeys(("train", "score"), ("cancelled", "cancelled"))
    by_slurm = site.launch("--stages", "train", "score", NEVER, name="second")
    slurm.run("scancel", by_slurm.ids["train"])
    assert ended(by_slurm) == {
        "train": ("cancelled", "cancelled through SLURM"),
        "score": ("skipped", "train was cancelled"),
    }
    in_between = site.launch("--stages", "wait", "hardened", "score", name="third")
    in_between.until_running("wait")
    slurm.run("scancel", in_between.ids["hardened"])
    until(lambda: in_between.states()[1:] == ["cancelled", "skipped"])
    assert in_between.status()["score"].reason == "hardened was cancelled"
    assert in_between.states()[0] == "running"


@pytest.mark.faults(PROCESS_KILLED)
def test_a_job_process_that_is_killed(site: Site) -> None:
    launch = site.launch("--stages", "wait", "score")
    launch.until_running("wait")
    (started,) = (each for each in launch.records.events("wait") if each["event"] == "started")
    os.kill(started["pid"], signal.SIGKILL)
    reason = "its job process ended without a result: killed by SIGKILL"
    assert ended(launch) == {"wait": ("failed", reason), "score": ("skipped", "wait failed")}
    metadata = launch.metadata("wait")
    assert metadata["state"] in ("failed", "interrupted")
    assert metadata["job"]["reason"] == reason
    assert launch.scontrol("wait")["JobState"] == "FAILED"


def test_a_job_whose_interpreter_is_not_there(site: Site) -> None:
    launch = site.launch("--stages", "train", "score", "cluster.python=/nonexistent/python")
    told = ended(launch)
    assert told["train"] == ("failed", "SLURM says FAILED, before the stage was started")
    assert told["score"] == ("skipped", "train failed")
    shown = site.run("status").stdout
    assert re.search("│ .*/nonexistent/python: No such file or directory", shown)
    assert f"submitit/{launch.ids['train']}_0_log.out" in shown


@pytest.mark.parametrize("status", [7, 0])
def test_a_job_whose_setup_ends_it(site: Site, status: int) -> None:
    """Whatever its exit status, the stage has not run, and neither may the next."""
    setup = f"cluster.setup=['cd /; echo no such module >&2; exit {status}']"
    launch = site.launch("--stages", "train", "score", setup)
    told = ended(launch)
    said = launch.records.directory / "submitit" / f"{launch.ids['train']}_0_log.out"
    assert told["train"] == ("failed", f"its job process could not begin; what it said: {said}")
    assert told["score"] == ("skipped", "train failed")
    assert launch.scontrol("train")["ExitCode"] == f"{status or 1}:0"
    assert launch.file("train", ".out").read_text().startswith("no such module\n")
    assert launch.metadata("train")["state"] == "failed"


def test_a_job_that_completes_without_its_stage(site: Site) -> None:
    launch = site.launch("--stages", "train", "score", "stages.train.setup=['exec true']")
    until(lambda: launch.scontrol("train")["JobState"] == "COMPLETED", 20)
    assert launch.states()[0] == "pending"  # a record may be late
    assert ended(launch, timeout_s=60) == {
        "train": ("failed", "its job completed without running it"),
        "score": ("skipped", "train failed"),
    }
    assert not launch.file("score", ".out").exists()


def test_a_job_process_that_cannot_begin_says_why_beside_the_stage(
    site: Site, tmp_path: Path
) -> None:
    python = tmp_path / "python"  # one that cannot load what the job process needs
    missing = 'case "$*" in *launcher.job.process*) echo "no libcrypt.so.1" >&2; exit 127; esac'
    python.write_text(f'#!/bin/sh\n{missing}\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    launch = site.launch("--stages", "train", "score", f"cluster.python={python}")
    told = ended(launch)
    assert told["train"][0] == "failed"
    assert told["train"][1].startswith("its job process could not begin; what it said: ")
    said = Path(told["train"][1].partition("what it said: ")[2])
    assert "no libcrypt.so.1" in said.read_text()
    assert "launcher: its job process could not begin" in launch.file("train", ".out").read_text()
    metadata = launch.metadata("train")
    assert (metadata["state"], metadata["job"]["job_id"]) == ("failed", launch.ids["train"])


def test_a_requeued_stage_runs_again_and_the_chain_holds(site: Site, slurm: Slurm) -> None:
    gate = site.recipe / "gate"
    launch = site.launch("--stages", "report", "score", environment={"TINY_GATE": str(gate)})
    first = launch.until_running("report")
    slurm.run("scontrol", "requeue", launch.ids["report"])
    until(lambda: launch.states()[0] == "pending", 20)
    assert launch.status()["report"].reason.startswith("put back into the queue by SLURM")
    assert launch.states()[1] == "pending"
    until(lambda: launch.noted("report")["pid"] != first)
    gate.touch()
    assert ended(launch) == {"report": ("done", ""), "score": ("done", "")}
    assert launch.scontrol("report")["Restarts"] == "1"
    metadata = launch.metadata("report")
    assert (metadata["state"], metadata["job"]["restart_count"]) == ("done", 1)
    assert metadata["job"]["job_id"] == launch.ids["report"]
    before = launch.metadata("report1")  # the first run's files are kept under a number
    assert (before["state"], before["job"]["restart_count"]) == ("interrupted", 0)
    assert before["job"]["reason"] == "put back into the queue by SLURM (killed by SIGTERM)"
    assert launch.file("report1", ".out").exists()


def test_a_preempted_stage_runs_again(site: Site, slurm: Slurm) -> None:
    gate = site.recipe / "gate"
    node = slurm.nodes[2]
    low = ["stages.report.partition=low", f"stages.report.sbatch.nodelist={node}"]
    launch = site.launch("--stages", "report", "score", *low, environment={"TINY_GATE": str(gate)})
    launch.until_running("report")
    gate.touch()
    slurm.run("srun", f"--nodelist={node}", "--exclusive", "true")
    told = ended(launch)
    assert told == {"report": ("done", ""), "score": ("done", "")}


@pytest.fixture
def patient(slurm: Slurm) -> Iterator[str]:
    """Return a partition whose jobs are warned by SIGTERM before they are preempted."""
    name = "launcher-patient"
    how = ("PriorityTier=1", "PreemptMode=REQUEUE", "GraceTime=30")
    slurm.run("scontrol", "create", f"PartitionName={name}", f"Nodes={','.join(slurm.nodes)}", *how)
    yield name
    slurm.run("scontrol", "delete", f"PartitionName={name}")


def test_a_stage_that_stops_when_preemption_is_announced_runs_again(
    site: Site, slurm: Slurm, patient: str
) -> None:
    """SLURM would call a job failed that ends, as it was asked to, in its time of grace."""
    gate = site.recipe / "gate"
    node = slurm.nodes[2]
    where = [f"stages.report.partition={patient}", f"stages.report.sbatch.nodelist={node}"]
    launch = site.launch(
        "--stages", "report", "score", *where, environment={"TINY_GATE": str(gate)}
    )
    launch.until_running("report")
    gate.touch()
    slurm.run("srun", f"--nodelist={node}", "--exclusive", "true")
    assert ended(launch) == {"report": ("done", ""), "score": ("done", "")}
    reason = "preempted by another job, and put back into the queue (killed by SIGTERM)"
    assert launch.metadata("report1")["job"]["reason"] == reason
    assert launch.scontrol("report")["Restarts"] == "1"
    site.close()  # the partition is not in use any more


def test_a_chain_that_is_refused_half_way_is_withdrawn(site: Site, tmp_path: Path) -> None:
    count = tmp_path / "count"
    third = f"echo x >> {count}; [ $(grep -c x {count}) -lt 6 ] || "
    refuse = "{ echo 'sbatch: error: Job violates accounting/QOS policy' >&2; exit 1; }"
    folder = wrap_commands(tmp_path, sbatch=third + refuse)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    options = ["--cluster", "slurm", "--container", "none", "launch_name=half"]
    differ = ["stages.wait.mem_gb=0.2", "stages.score.mem_gb=0.3"]  # three questions, then jobs
    done = site.run(*options, "--stages", "train", "wait", "score", *differ, environment=path)
    assert done.returncode == 1
    assert done.stderr == (
        "launcher: could not submit score: sbatch: Job violates accounting/QOS policy. "
        "What had been submitted is cancelled: train, wait.\n"
    )
    launch = named(site, "half")
    assert ended(launch) == {
        **dict.fromkeys(("train", "wait"), ("cancelled", "cancelled")),
        "score": ("cancelled", "cancelled before it was submitted"),
    }


@pytest.mark.faults(LAUNCHER_KILLED)
def test_a_launcher_that_is_killed_half_way_has_started_nothing(site: Site, tmp_path: Path) -> None:
    count = tmp_path / "count"
    third = f"echo x >> {count}; [ $(grep -c x {count}) -lt 4 ] || kill -KILL $PPID"
    folder = wrap_commands(tmp_path, sbatch=third)
    options = ["--cluster", "slurm", "--container", "none", "launch_name=killed"]
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = site.run(*options, "--stages", "report", "train", "score", environment=path)
    assert done.returncode == -signal.SIGKILL
    launch = named(site, "killed")
    time.sleep(1.5)
    told = launch.status()
    assert told["report"].state == told["train"].state == "pending"
    left = "the launcher ended before the whole chain was submitted"
    assert told["report"].reason == f"{left}; held"
    assert (told["score"].state, told["score"].reason) == (
        "cancelled",
        "the launcher ended before it was submitted",
    )
    assert left in site.run("status").stdout
    cancelled = site.run("cancel")
    assert cancelled.returncode == 0, cancelled.stdout
    assert [state for state, _ in ended(launch).values()] == ["cancelled"] * 3
    assert site.queued() == []  # nor what was submitted and not recorded


@pytest.mark.faults(LAUNCHER_KILLED)
@pytest.mark.parametrize(
    "after",
    [
        "kill -KILL $PPID",
        "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1",
    ],
    ids=["killed", "not told"],
)
def test_a_job_that_sbatch_submitted_and_nobody_recorded_is_cancelled(
    site: Site, tmp_path: Path, after: str
) -> None:
    sbatch = shutil.which("sbatch")
    held = f'case "$*" in *--hold*) {sbatch} "$@"; {after};; esac'
    path = {"PATH": f"{wrap_commands(tmp_path, sbatch=held)}:{os.environ['PATH']}"}
    options = ["--cluster", "slurm", "--container", "none", "launch_name=lost"]
    done = site.run(*options, "--stages", "train", "score", environment=path)
    assert done.returncode != 0
    if "kill" in after:
        assert len(site.queued()) == 1
        assert "the launcher ended before it was submitted" in site.run("status").stdout
        site.run("cancel")
    until(lambda: not site.queued(), 10)


@pytest.mark.faults(CANCELLED)
def test_control_c_while_following_cancels_the_launch(site: Site) -> None:
    command = [sys.executable, "-m", "launcher", "--cluster", "slurm", "--container", "none"]
    with subprocess.Popen(
        [*command, "--follow", "--stages", "wait", "score", "launch_name=followed"],
        cwd=site.recipe,
        env=site.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("launch ")
        launch = named(site, "followed")
        launch.until_running("wait")
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "cancelling the launch" in said
    assert {state for state, _ in ended(launch).values()} == {"cancelled"}


@pytest.mark.faults(SLURM_AWAY)
def test_a_slurm_that_does_not_answer_is_said_so(site: Site, tmp_path: Path) -> None:
    launch = site.launch("--stages", "train", "score", NEVER)
    mute = wrap_commands(tmp_path, squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    path = {"PATH": f"{mute}:{os.environ['PATH']}"}
    shown = site.run("status", environment=path)
    assert shown.returncode == 0
    assert re.search(
        r"^train  pending .*the scheduler does not answer$", shown.stdout, re.MULTILINE
    )
    assert launch.states() == ["pending", "pending"]


@pytest.mark.faults(SLURM_AWAY)
def test_without_slurm_cancel_says_so_soon_and_does_nothing(site: Site) -> None:
    launch = site.launch("--stages", "train", "score", NEVER)
    nowhere = {"SLURM_CONF": "/nonexistent/slurm.conf"}
    begun_s = time.monotonic()
    done = site.run("cancel", environment=nowhere)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no controller from here (SLURM_CONF=/nonexistent/slurm.conf" in done.stderr
    assert time.monotonic() - begun_s < 10
    assert "no controller from here" in site.run("status", environment=nowhere).stdout
    assert launch.states() == ["pending", "pending"]


def test_under_another_slurm_nothing_is_called_ended_nor_cancelled(
    site: Site, slurm: Slurm, tmp_path: Path
) -> None:
    launch = site.launch("--stages", "wait", "score")
    launch.until_running("wait")
    (recorded,) = (e for e in launch.records.events(LAUNCH) if e["event"] == "scheduler")
    real = re.search(r"ClusterName\s*=\s*(\S+)", slurm.run("scontrol", "show", "config"))
    assert real is not None
    assert recorded["cluster"] == real[1]
    another = "printf 'ClusterName = another\\n'; exit 0"
    nothing = "echo 'Invalid job id' >&2; exit 1"
    folder = wrap_commands(tmp_path, scontrol=another, squeue=nothing)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    shown = site.run("status", environment=path)
    assert f"submitted to SLURM cluster {real[1]}, and this shell talks to another" in shown.stdout
    assert re.search(r"^wait\s+running", shown.stdout, re.MULTILINE), shown.stdout
    done = site.run("cancel", environment=path)
    assert done.returncode == 1
    assert "and this shell talks to another" in done.stderr
    assert launch.states() == ["running", "pending"]
    assert "cancel_requested" not in [e["event"] for e in launch.records.events(LAUNCH)]


def test_a_job_in_a_folder_that_is_no_utf8_keeps_nobody_from_cancelling(
    site: Site, slurm: Slurm, tmp_path: Path
) -> None:
    folder = tmp_path / "w\udcff"
    folder.mkdir()
    environment = {**os.environ, **slurm.environment}
    command = ["sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true"]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    try:
        launch = site.launch("--stages", "train", "score", NEVER)
        cancelled = site.run("cancel")
        assert cancelled.returncode == 0, cancelled.stderr
        assert {state for state, _ in ended(launch).values()} == {"cancelled"}
    finally:
        subprocess.run(["scancel", done.stdout.decode().strip()], env=environment, timeout=30)


def test_a_stage_that_listens_saves_before_its_time_is_over(
    at_their_limit: dict[str, SlurmLaunch],
) -> None:
    launch = at_their_limit["wait"]
    reason = (
        "killed by SIGUSR2, after it was warned 10 s before its time limit of 1 min: run it again, "
        "and a training goes on from its checkpoint, or raise stages.wait.timeout_min"
    )
    assert ended(launch, 120) == {"wait": ("failed", reason), "score": ("skipped", "wait failed")}
    metadata = launch.metadata("wait")
    status = launch.recorded("wait")
    assert status.started is not None
    assert status.ended is not None
    assert status.ended - status.started > 40  # though Slurm sends it up to a minute early
    assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", "SIGUSR2")
    assert metadata["job"]["exit_code"] == 140


@pytest.mark.parametrize(("stage", "how"), [("deaf", "SIGTERM"), ("hardened", "SIGKILL")])
def test_a_stage_that_does_not_listen_has_all_of_its_time(
    at_their_limit: dict[str, SlurmLaunch], stage: str, how: str
) -> None:
    launch = at_their_limit[stage]
    reason = f"out of time: SLURM ended it at its time limit (killed by {how})"
    assert ended(launch, 120) == {
        stage: ("failed", reason),
        "score": ("skipped", f"{stage} failed"),
    }
    status = launch.recorded(stage)
    assert status.started is not None
    assert status.ended is not None
    assert status.ended - status.started > 55
    assert launch.scontrol(stage)["JobState"] == "TIMEOUT"
    metadata = launch.metadata(stage)
    assert (metadata["exit"]["signal"], metadata["job"]["reason"]) == (how, reason)
    events = [each["event"] for each in launch.records.events(LAUNCH)]
    assert "cancel_requested" not in events
    assert shlex.quote(stage) == stage


def test_a_failure_in_a_folder_that_is_no_utf8_has_its_reason(slurm: Slurm, tmp_path: Path) -> None:
    site = Site(slurm, write_recipe(tmp_path / "inv\udcff"))
    try:
        command = ["--cluster", "slurm", "--container", "none", "--stages", "fail", "score"]
        done = site.run(*command, "launch_name=odd")
        assert done.returncode == 0, done.stderr
        launch = named(site, "odd")
        assert ended(launch)["fail"] == ("failed", "exit status 3")
    finally:
        for job in site.queued():
            subprocess.run(["scancel", job], env={**os.environ, **slurm.environment}, timeout=30)
