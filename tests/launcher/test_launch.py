"""From plan to jobs, compared whole; and a submission that fails half-way."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import recipe
from launcher.clusters import local
from launcher.clusters.base import JobHandle
from launcher.config import LaunchConfig
from launcher.containers.none import NoContainer, Settings
from launcher.dry_run import describe
from launcher.errors import ConfigError, RecordError, SubmissionError
from launcher.launch import Launch, build_launch
from launcher.launches.dirs import free_directory, launches_dir
from launcher.plan import PlannedStage, StagePlan
from launcher.prepare import unknown_stages
from launcher.processes.identity import ProcessId
from launcher.recipe import Recipe
from launcher.records import LAUNCH, LaunchRecords
from launcher.snapshot import plan_snapshot
from launcher.snapshot.provenance import git_state
from launcher.status import JobStatus, chain_status
from launcher.submission import cancel, submit

GOLDEN = Path(__file__).parent / "golden"


def make_launch(recipe_dir: Path) -> Launch:
    exp_dir = recipe_dir / "exp" / "tiny"
    names = {"prepare": recipe_dir / "data", "fit": exp_dir, "score": exp_dir / "inference"}
    stages = tuple(PlannedStage(name, log_dir, {}) for name, log_dir in names.items())
    plan = StagePlan(recipe_dir, "src.tiny_system.TinySystem", exp_dir, stages)
    config = LaunchConfig(
        cluster=local.Settings(),
        container=Settings(python="/opt/py thon/bin/python"),
        launches_dir=str(recipe_dir / "launches"),
        stop_grace_s=2.5,
        env={"GREETING": 'it\'s "me" $HOME'},
    )
    return build_launch(
        Recipe(recipe_dir, recipe_dir),
        plan,
        config,
        NoContainer(config.container),
        ["--labels_config", "a b.yaml"],
        directory=recipe_dir / "launches" / "tonight",
        pins={},
    )


def show(launch: Launch) -> str:
    settings = launch.config
    return describe(launch, local.LocalCluster(settings.cluster), NoContainer(settings.container))


def submit_to(cluster: FakeCluster, launch: Launch, *command_line: str) -> LaunchRecords:
    recipe_dir = launch.recipe.directory
    snapshot = plan_snapshot("none", [recipe_dir], [recipe_dir], launch.directory / "snapshot")
    return submit(launch, cluster, command_line=command_line, snapshot=snapshot)


def test_dry_run_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of a launch from a hostile path, as --dry-run prints it, byte for byte."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", "/srv/my project/.venv/bin/python")
    monkeypatch.setattr(recipe, "project_root", lambda: Path("/srv/my project"))
    text = show(make_launch(Path("/srv/my 'own' \"work\" %j é/tiny/asr")))
    assert text + "\n" == (GOLDEN / "dry_run.txt").read_text(encoding="utf-8")


def test_dry_run_can_be_typed_into_a_shell(recipe_dir: Path) -> None:
    """What is shown as `cd`, `env` and `command` is quoted for the shell as it stands."""
    launch = make_launch(recipe_dir)
    text = show(launch).partition("\nfit, after prepare\n")[0]
    shown = {
        label: re.search(rf"^  {label} +((?:.*\\\n)*.*)$", text, re.MULTILINE)[1]
        for label in ("cd", "env", "command")
    }
    show_arguments = f"{sys.executable} -c 'import sys; print(sys.argv[1:])'"
    script = f"""cd {shown["cd"]} && env {shown["env"]} sh -c 'pwd; echo "$GREETING"'
        {show_arguments} {shown["command"]}"""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    command = NoContainer(launch.config.container).command(launch.jobs[0].run)
    assert done.stdout == f'{recipe_dir}\nit\'s "me" $HOME\n{command}\n'


def test_dry_run_breaks_long_commands_between_words(recipe_dir: Path) -> None:
    flags = [word for number in range(20) for word in (f"--flag_{number}", f"value {number}")]
    launch = make_launch(recipe_dir)
    run = replace(launch.jobs[0].run, command=("python", *flags))
    lines = show(replace(launch, jobs=(replace(launch.jobs[0], run=run),))).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  command"))
    command = [line for line in lines[start:-2] if "launches/tonight" not in line]
    start = next(number for number, line in enumerate(command) if "--flag_0" in line)
    assert command[start].startswith("           python --flag_0 'value 0' --flag_1")
    assert max(map(len, command)) <= 88
    assert all(line.endswith(" \\") for line in command[:-1])


class FakeCluster:
    """Takes a number of jobs, then refuses."""

    def __init__(self, room: int, error: BaseException | None = None) -> None:
        self.room = room
        self.error = error or OSError("no more processes")
        self.cancelled: list[tuple[str, bool]] = []

    def submit(self, job: object, launch: object, records: object) -> JobHandle:
        if self.room == 0:
            raise self.error
        self.room -= 1
        return JobHandle("7", ProcessId.of(1))

    def release(self, records: object) -> None:
        pass

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        self.cancelled.append((status.stage, force))


def test_submission_records_everything(recipe_dir: Path) -> None:
    launch = make_launch(recipe_dir)
    records = submit_to(FakeCluster(room=3), launch, "python", "-m", "launcher")
    assert records.directory.parent == launches_dir(launch.recipe, launch.config)
    assert records.directory == launch.directory
    record = records.read_launch()
    assert [job["after"] for job in record["jobs"]] == [None, "prepare", "fit"]
    assert record["plan"] == json.loads(json.dumps(launch.plan.to_record()))
    assert record["config"]["stop_grace_s"] == 2.5
    assert record["command_line"] == ["python", "-m", "launcher"]
    events = [(event["event"], event.get("stage")) for event in records.events(LAUNCH)]
    submitted = [("submitted", stage) for stage in ("prepare", "fit", "score")]
    assert events == [*submitted, ("released", None)]


def test_no_secret_is_on_record(recipe_dir: Path) -> None:
    launch = make_launch(recipe_dir)
    secret = ("--hf_token", "sekrit12345")
    jobs = tuple(
        replace(
            job,
            run=replace(
                job.run,
                command=(*job.run.command, *secret),
                environment={**job.run.environment, "PROXY": "http://me:sekrit12345@proxy"},
            ),
        )
        for job in launch.jobs
    )
    command_line = ["python", "-m", "launcher", *secret, "+env.API_KEY=sekrit12345"]
    records = submit_to(FakeCluster(room=3), replace(launch, jobs=jobs), *command_line)
    path = records.directory / "launch.json"
    assert "sekrit12345" not in path.read_text()
    assert records.read_launch()["command_line"][3:] == ["--hf_token", "***", "+env.API_KEY=***"]
    files = [each for each in records.directory.rglob("*") if each.is_file()]
    assert path in files
    assert not [each for each in files if "sekrit12345" in each.read_text(errors="replace")]
    assert stat.S_IMODE(records.directory.stat().st_mode) == 0o700


def test_a_half_made_submission_is_undone_and_told(recipe_dir: Path) -> None:
    cluster = FakeCluster(room=2)
    with pytest.raises(SubmissionError, match=r"could not submit score: no more processes.*"):
        submit_to(cluster, make_launch(recipe_dir))
    assert cluster.cancelled == [("fit", False), ("prepare", False)]
    (directory,) = (recipe_dir / "launches").iterdir()
    score = chain_status(LaunchRecords(directory))[2]  # and does not stay pending for ever
    assert (score.state, score.reason) == ("cancelled", "cancelled before it was submitted")


def test_control_c_during_submission_leaves_no_half_chain(recipe_dir: Path) -> None:
    cluster = FakeCluster(room=1, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        submit_to(cluster, make_launch(recipe_dir))
    assert cluster.cancelled == [("prepare", False)]


def test_the_launch_directory_is_one_that_is_free(recipe_dir: Path) -> None:
    launch = make_launch(recipe_dir)
    first = free_directory(launch.recipe, launch.config)
    assert re.fullmatch(r"\d{8}-\d{6}-tiny-asr", first.name)
    launch.directory.mkdir(parents=True)
    with pytest.raises(RecordError, match="has just made"):
        LaunchRecords.create(launch.directory)
    named = replace(launch.config, launch_name="tonight")
    with pytest.raises(ConfigError, match="already"):
        free_directory(launch.recipe, named)
    for name in ("..", "a/b", ""):
        with pytest.raises(ConfigError, match="name of a folder"):
            free_directory(launch.recipe, replace(launch.config, launch_name=name))


def test_cancel_leaves_ended_jobs_alone(tmp_path: Path) -> None:
    records = LaunchRecords.create(tmp_path / "launch")
    for stage in ("fit", "score"):
        records.append(LAUNCH, "submitted", stage=stage, job_id="7")
    records.append("fit", "ended", state="done", reason="", exit_code=0)
    cluster = FakeCluster(room=0)
    assert cancel(records, ["fit", "score"], cluster, force=True) == ["score"]
    assert cluster.cancelled == [("score", True)]
    assert records.events(LAUNCH)[2]["stages"] == ["score"]


def test_settings_of_stages_that_are_not_launched(recipe_dir: Path) -> None:
    launch = make_launch(recipe_dir)
    stages = {"fit": {}, "train": {}, "scoer": {}, "prepare_all": {}}
    config = replace(launch.config, stages=stages)
    typed = ["stages.train.mem_gb=3", "mounts=[]"]
    (warning,) = unknown_stages(config, launch.plan, typed)
    assert "not in this launch: train, scoer, prepare_all. It has prepare, fit, score" in warning
    of_a_file = replace(launch.config, stages={"fit": {}, "train": {}, "infer": {}})
    assert unknown_stages(of_a_file, launch.plan, ["mounts=[]"]) == []


def test_git_state(hostile_path: Path) -> None:
    assert git_state(hostile_path) is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        command = ["git", "-C", str(hostile_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (hostile_path / "a file").write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    assert git_state(hostile_path) == {"commit": git("rev-parse", "HEAD"), "changed_files": []}
    (hostile_path / "a file").write_text("2")
    changed = git_state(hostile_path)
    assert changed is not None
    assert changed["changed_files"] == ["a file"]


def test_a_launch_that_cannot_be_written_leaves_nothing(recipe_dir: Path, small_disk: Path) -> None:
    launch = make_launch(recipe_dir)
    launch = replace(launch, directory=small_disk / "launches" / "one")
    with pytest.raises(RecordError, match=rf"{re.escape(str(small_disk))}.*No space left"):
        submit_to(FakeCluster(3), launch)
    assert list((small_disk / "launches").iterdir()) == []
