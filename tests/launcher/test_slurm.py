"""What SLURM's commands are given and how their answers are read, without a SLURM."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launcher import recipe
from launcher.clusters import slurm
from launcher.clusters.base import JobState
from launcher.config import LaunchConfig, load_config
from launcher.containers.none import NoContainer
from launcher.containers.none import Settings as OnTheHost
from launcher.display import follow
from launcher.dry_run import describe, nominal_run
from launcher.errors import ConfigError, LauncherError
from launcher.job import guard
from launcher.job.outcome import Outcome
from launcher.job.prepared import job_environment
from launcher.job.stop_request import StopRequest
from launcher.launch import Launch, build_launch
from launcher.plan import PlannedStage, StagePlan
from launcher.processes.identity import ProcessId
from launcher.processes.interrupts import Interrupts
from launcher.recipe import Recipe
from launcher.records import LAUNCH, LaunchRecords
from launcher.slurm import client as slurm_client
from launcher.slurm import epilogue as slurm_epilogue
from launcher.slurm.calls import submission_environment
from launcher.slurm.capacity import check_fits
from launcher.slurm.script import script_text
from launcher.status import chain_status, job_status

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = Path("/srv/my 'own' \"work\" %j:é/tiny/asr")


def make_launch(recipe_dir: Path, stages: Mapping[str, Any], **settings: Any) -> Launch:
    exp_dir = recipe_dir / "exp" / "tiny"
    planned = tuple(PlannedStage(name, exp_dir, {}) for name in ("prepare", "fit"))
    config = LaunchConfig(
        cluster=slurm.Settings(**settings),
        container=OnTheHost(python="/opt/py thon/bin/python"),
        stages=dict(stages),
    )
    return build_launch(
        Recipe(recipe_dir, recipe_dir),
        StagePlan(recipe_dir, "src.tiny_system.TinySystem", exp_dir, planned),
        config,
        NoContainer(config.container),
        [],
        directory=recipe_dir / ".launches" / "tonight",
        pins={},
    )


def script_of(launch: Launch, stage: str) -> str:
    (job,) = (job for job in launch.jobs if job.stage == stage)
    return script_text(launch.directory / "submitit", "/bin/python", job, launch.experiment)


def options_of(script: str) -> dict[str, str]:
    """Return the options as sbatch reads them: with a backslash that escapes everywhere."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    found = {}
    for line in lines:
        unescaped = re.sub(r"\\(.)", r"\1", line.removeprefix("#SBATCH --"))
        (word,) = shlex.split(unescaped.replace("\\", "\0"))
        name, _, value = word.replace("\0", "\\").partition("=")
        found[name] = value
    return found


def test_dry_run_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts and commands from a hostile path, with every setting in use, byte for byte."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", "/srv/my project/.venv/bin/python")
    for module in (recipe, sys.modules["launcher.job.copied_code"]):
        monkeypatch.setattr(module, "project_root", lambda: Path("/srv/my project"))
    everything = {
        "nodes": 2,
        "cpus_per_task": 4,
        "gpus_per_node": 2,
        "mem_gb": 1.5,
        "timeout_min": 90,
        "partition": "gpu,gpu-long",
        "account": "speech",
        "qos": "night",
        "constraint": "a100|h100",
        "sbatch": {"exclude": ["n1", "n2"], "exclusive": True, "comment": "it's me", "nice": None},
        "srun_args": ["--cpu-bind=none", "--label"],
        "setup": ["module load apptainer", "export A='b c'"],
        "requeue": False,
        "signal_delay_s": 120,
        "kill_on_invalid_dep": False,
        "env": {"GREETING": "it's me"},
    }
    launch = make_launch(HOSTILE, {"fit": everything}, gres="gpu:a100:1", signal_delay_s=0)
    launch = replace(launch, jobs=(launch.jobs[0], _without_gres(launch.jobs[1])))
    settings = launch.config
    cluster, container = slurm.SlurmCluster(settings.cluster), NoContainer(settings.container)
    text = describe(launch, cluster, container, environ={})
    assert text + "\n" == (GOLDEN / "slurm.txt").read_text(encoding="utf-8")


def _without_gres(job: Any) -> Any:
    return replace(
        job, settings=replace(job.settings, cluster=replace(job.settings.cluster, gres=None))
    )


@pytest.mark.parametrize(
    "name",
    ["plain", "my 'own' \"work\" %j:é", "back\\slash \\n", "ends\\", "$HOME `id` #", "\udcff"],
)
def test_any_path_is_written_so_that_sbatch_and_bash_read_it(name: str) -> None:
    folder = Path("/srv", name, "submitit")
    launch = make_launch(Path("/srv", name), {}, setup=["true"])
    job = launch.jobs[0]
    script = script_text(folder, f"/opt/{name}/python", job, name)
    options = options_of(script)
    assert options["chdir"] == str(folder)
    assert options["job-name"] == f"{name}.prepare"
    if "\\" in name:  # Slurm has no way to write an output there
        assert options["output"] == "/dev/null"
        assert 'exec >> "${SLURM_JOB_ID}_0_log.out" 2>&1' in script.splitlines()
    else:
        assert options["output"].replace("%%", "\0").replace("\0", "%") == f"{folder}/%j_0_log.out"
    body = script[script.index("\n\n") :].replace("\nsrun ", "\nprintf '%s\\0' \"$PYTHONPATH\" ")
    shown = subprocess.run(
        ["bash", "-c", f"cd() {{ printf '%s\\0' \"$1\"; }}; {_plain(body)}"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "/else where"},
        capture_output=True,
        check=True,
        stdin=subprocess.DEVNULL,
        cwd="/tmp",
    )
    words = os.fsdecode(shown.stdout).split("\0")
    assert words[0] == str(folder)
    assert words[1] in (f"/srv/{name}/code:/else where", f"{recipe.project_root()}:/else where")
    assert f"/opt/{name}/python" in words


def _plain(body: str) -> str:
    return body.replace('exec >> "${SLURM_JOB_ID}_0_log.out" 2>&1', "true")


def test_a_line_break_is_refused() -> None:
    launch = make_launch(Path("/srv/a\nb"), {})
    with pytest.raises(ConfigError, match=r"no way to take a line break.*--chdir"):
        script_of(launch, "prepare")


def test_settings_of_a_stage_are_its_own() -> None:
    stages = {"fit": {"partition": "gpu", "mem_gb": 0.5, "sbatch": {"exclusive": False}}}
    launch = make_launch(Path("/srv"), stages, partition="cpu", sbatch={"exclusive": True})
    prepare, fit = (options_of(script_of(launch, stage)) for stage in ("prepare", "fit"))
    assert (prepare["partition"], fit["partition"]) == ("cpu", "gpu")
    assert ("mem" in prepare, fit["mem"]) == (False, "512M")
    assert ("exclusive" in prepare, "exclusive" in fit) == (True, False)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"gres": "gpu:2", "gpus_per_node": 1},
            "fit asks for GPUs twice: gres=gpu:2 and gpus_per_node=1. Leave one of them out.",
        ),
        (
            {"sbatch": {"mem": "4G"}},
            "sbatch.mem has a setting of its own: stages.fit.mem_gb=… for one stage, "
            "resources.mem_gb=… for all.",
        ),
        (
            {"sbatch": {"partition": "gpu"}},
            "sbatch.partition has a setting of its own: stages.fit.partition=… for one stage, "
            "cluster.partition=… for all.",
        ),
        (
            {"sbatch": {"ntasks_per_node": 8}},
            "sbatch.ntasks_per_node cannot be set: the launcher itself gives --ntasks-per-node to "
            "each job.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(stage: dict[str, Any], message: str) -> None:
    launch = make_launch(Path("/srv"), {"fit": stage})
    script_of(launch, "prepare")
    with pytest.raises(ConfigError) as caught:
        script_of(launch, "fit")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arra", "sbatch takes it for --array"),
        ("a", "has a setting of its own: stages.fit.account"),
        ("no_requ", "has a setting of its own: stages.fit.requeue"),
        ("outp", "sbatch takes it for --output"),
        ("cluster", "no stage can be submitted with --clusters"),
        ("comment=a\ntouch /tmp/x\n#", "cannot be the name of an option"),
        ("comment\n", "cannot be the name of an option"),
        ("--comment", "cannot be the name of an option"),
        ("comment=a --array", "cannot be the name of an option"),
        ("Array", "cannot be the name of an option"),
        ("", "cannot be the name of an option"),
    ],
)
def test_no_name_of_an_option_is_taken_for_another(name: str, message: str) -> None:
    launch = make_launch(Path("/srv"), {"fit": {"sbatch": {name: "0-2"}}})
    with pytest.raises(ConfigError, match=message):
        script_of(launch, "fit")


def test_options_of_sbatch_that_begin_like_those_of_the_launcher_are_taken() -> None:
    names = ["time-min", "wait-all-nodes", "mem-per-cpu", "nodelist", "nodefile", "exclude"]
    given = dict.fromkeys(names, "1")
    options = options_of(script_of(make_launch(Path("/srv"), {"fit": {"sbatch": given}}), "fit"))
    assert {name: options[name] for name in names} == given


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--export=ALL,HF_TOKEN=abcdefgh", r"--export is the launcher's to give.*env\.NAME"),
        ("--expo=ALL", "--expo cannot be set: --export is"),
        ("--output=x", "--output is"),
        ("--err", "--error is"),
        ("--job-name=x", "--job-name is"),
        ("-ox", "by their long names"),
        ("--", "by their long names"),
        ("--container-env=A=1,HF_TOKEN=abcdefgh", "looks as if it held a secret"),
        ("--container-image=https://me:hunter22@example.org/x", "looks as if it held a secret"),
    ],
)
def test_what_is_not_for_srun_is_refused(argument: str, message: str) -> None:
    launch = make_launch(Path("/srv"), {}, srun_args=["--cpu-bind", "none", argument])
    with pytest.raises(ConfigError, match=message) as caught:
        script_of(launch, "fit")
    assert "abcdefgh" not in str(caught.value)
    with pytest.raises(ConfigError, match="secret"):
        script_of(make_launch(Path("/srv"), {"fit": {"sbatch": {"comment": "A_TOKEN=x"}}}), "fit")


def test_a_refusal_names_what_was_asked_and_what_there_is(commands) -> None:
    said = "sbatch: error: Requested node configuration is not available\n"
    commands("sbatch", errors=said, code=1)
    commands("sinfo", "main*|3|4|7000|gpu:4\nlow|2|8+|15000+|(null)\n")
    asked = {"nodes": 1, "mem_gb": 900, "gpus_per_node": 0, "partition": None}
    with pytest.raises(ConfigError) as caught:
        check_fits("#!/bin/sh\n", "fit", asked)
    assert str(caught.value) == (
        "SLURM would not take fit: sbatch: Requested node configuration is not available. "
        "It asks for nodes=1, mem_gb=900. There is: main: 3 nodes with 4 CPUs, 6.8 GiB, gpu:4; "
        "low: 2 nodes with 8+ CPUs, 14.6 GiB (sinfo -o '%P %D %c %m %G %f'). What a stage asks for "
        "is set with stages.fit.KEY=VALUE; --dry-run shows the script."
    )
    commands("sinfo", "".join(f"p{n}|1|1|1|(null)\n" for n in range(6)))
    with pytest.raises(ConfigError, match=r"p3: .*; and 2 more: sinfo -o"):
        check_fits("#!/bin/sh\n", "fit", asked)
    commands("sbatch", errors="sbatch: unrecognized option '--exclood=n1'", code=1)
    with pytest.raises(ConfigError) as caught:
        check_fits("#!/bin/sh\n", "fit", asked)
    assert "There is" not in str(caught.value)


def test_without_a_controller_it_is_said_what_to_set(
    commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "env.sh").touch()
    monkeypatch.setenv("REHEARSAL_DIR", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    lost = (
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
        "sbatch: fatal: Could not establish a configuration source\n"
    )
    commands("sbatch", errors=lost, code=1)
    with pytest.raises(LauncherError) as caught:
        check_fits("#!/bin/sh\n", "fit", {})
    assert not isinstance(caught.value, ConfigError)  # nothing is wrong with the stage
    assert str(caught.value) == (
        "SLURM's commands find no controller from here (sbatch: Could not establish a "
        "configuration source). Load what your site sets for SLURM, or set SLURM_CONF to its "
        f"slurm.conf; on the rehearsal cluster: . {tmp_path}/env.sh."
    )
    commands("sbatch", errors="Unable to contact slurm controller (connect failure)", code=1)
    with pytest.raises(LauncherError, match=r"SLURM does not answer.*scontrol ping"):
        check_fits("#!/bin/sh\n", "fit", {})
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "gone.conf"))
    with pytest.raises(LauncherError, match=r"gone\.conf, and there is no such file"):
        check_fits("#!/bin/sh\n", "fit", {})


def test_what_strangers_call_their_folders_harms_nobody(commands, tmp_path: Path) -> None:
    folder = tmp_path / "squeue.output"
    ours = b"/srv/inv\xff"
    folder.write_bytes(b"1|/home/x/w\xff\n2|" + ours + b"\n")
    commands("squeue")
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\nexec /bin/cat {folder}\n")
    assert slurm_client.jobs_in(Path(os.fsdecode(ours))) == ["2"]


@pytest.mark.parametrize(
    ("told", "left_s"),
    [("0:45", 45), ("1:02:03", 3723), ("2-00:00:01", 172801), ("UNLIMITED", None), ("", None)],
)
def test_the_time_that_is_left(commands, told: str, left_s: float | None) -> None:
    commands("squeue", f"{told}\n")
    assert slurm_client.time_left_s("5") == left_s


CONFIG = "Configuration data as of 2026\nClusterName             = {}\nKillWait = 30 sec\n"


@pytest.fixture
def elsewhere(commands, records: LaunchRecords) -> slurm.SlurmCluster:
    """Return the cluster of a launch on `ours`, where `theirs` answers."""
    records.append(LAUNCH, "scheduler", cluster="ours")
    commands("scontrol", CONFIG.format("theirs"))
    commands("squeue", "0|RUNNING|None\n")
    cluster = slurm.SlurmCluster(slurm.Settings())
    cluster.belongs_to(records)
    return cluster


def test_another_slurm_is_not_believed(
    commands, records: LaunchRecords, elsewhere: slurm.SlurmCluster
) -> None:
    records.append("prepare", "started", host="n1")
    calls = commands("scancel")
    prepare = chain_status(records, elsewhere)[0]
    assert prepare.state == "running"
    assert prepare.reason == "on SLURM cluster ours, which this shell does not talk to"
    with pytest.raises(
        LauncherError, match=r"to SLURM cluster ours, and this shell talks to their"
    ):
        elsewhere.check_reach()
    with pytest.raises(LauncherError, match=r"SLURM_CONF"):
        elsewhere.cancel(prepare, force=True)
    assert not calls.exists()
    commands("scontrol", CONFIG.format("ours"))
    elsewhere.check_reach()


def test_a_job_id_that_is_a_strangers_now_is_left_alone(commands, records: LaunchRecords) -> None:
    cluster = slurm.SlurmCluster(slurm.Settings())
    cluster.belongs_to(records)
    calls = commands("scancel")
    status = job_status(records, "prepare")
    commands("squeue", "RUNNING|/home/stranger/work\n")
    with pytest.raises(LauncherError, match=r"is not prepare's any more: it works in /home/stran"):
        cluster.cancel(status, force=False)
    assert not calls.exists()
    commands("squeue", f"PENDING|/mnt/as/the/job/sees/it/{records.directory.name}/submitit\n")
    cluster.cancel(status, force=False)
    assert calls.read_text() == f"{status.job_id}\n"
    calls.unlink()
    # A stage that runs is left to its job, which lets it save its work.
    records.append("prepare", "started", host="n1")
    commands("squeue", f"RUNNING|{records.directory}/submitit\n")
    cluster.cancel(job_status(records, "prepare"), force=False)
    assert calls.read_text() == f"--signal=URG {status.job_id}.0\n"


@pytest.mark.parametrize(
    ("timeout_min", "delay_s", "expected"),
    [(1, 90, "URG@15"), (6, 90, "URG@90"), (60, 90, "URG@90"), (None, 90, "URG@90"), (1, 0, None)],
)
def test_a_warning_comes_in_the_last_quarter(
    timeout_min: float | None, delay_s: float, expected: str | None
) -> None:
    stage = {} if timeout_min is None else {"timeout_min": timeout_min}
    launch = make_launch(Path("/srv"), {"fit": stage}, signal_delay_s=delay_s)
    assert options_of(script_of(launch, "fit")).get("signal") == expected


def test_a_persons_own_defaults_of_sbatch_are_defaults_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "speech")
    monkeypatch.setenv("SBATCH_PARTITION", "cpu")
    monkeypatch.delenv("SBATCH_QOS", raising=False)
    found = load_config({"cluster": "slurm"}, ["cluster.partition=gpu"], recipe_dir=tmp_path)
    chosen = found.cluster
    assert (chosen.account, chosen.partition, chosen.qos) == ("speech", "gpu", None)


def test_nothing_of_an_enclosing_job_is_inherited() -> None:
    site = {"SLURM_CONF": "/etc/slurm.conf", "PATH": "/bin", "HF_TOKEN": "x", "SLURMY": "y"}
    job = {
        "SLURM_JOB_ID": "71",
        "SLURM_MEM_PER_NODE": "100",
        "SLURMD_NODENAME": "n1",
        "SRUN_DEBUG": "3",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_GET_USER_ENV": "1",
        "SUBMITIT_EXECUTOR": "slurm",
        "CUDA_VISIBLE_DEVICES": "1",
        "MASTER_ADDR": "n1",
        "NODE_RANK": "1",
        "TMPDIR": "/scratch/job-71",
    }
    assert submission_environment({**site, **job}) == site
    at_a_terminal = {"TMPDIR": "/scratch/717", "MASTER_ADDR": "n9", "SBATCH_QOS": "x"}
    kept = submission_environment({**site, **at_a_terminal})
    assert kept == {**site, "TMPDIR": "/scratch/717", "MASTER_ADDR": "n9"}
    other = submission_environment({"SLURM_JOB_ID": "71", "TMPDIR": "/scratch/717"})
    assert other == {"TMPDIR": "/scratch/717"}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that has a command of SLURM's print this and exit with that."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, output: str = "", errors: str = "", code: int = 0) -> Path:
        script = folder / name
        script.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {folder}/{name}.calls\n"
            f"printf %s {shlex.quote(output)}\nprintf %s {shlex.quote(errors)} >&2\nexit {code}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return folder / f"{name}.calls"

    return make


def test_states_are_asked_for_in_one_call_and_in_words(commands) -> None:
    rows = {
        "1": ("RUNNING|None", JobState("running")),
        "2": ("COMPLETING|None", JobState("running")),
        "3": ("SUSPENDED|None", JobState("running", "suspended")),
        "4": ("PENDING|Dependency", JobState("pending", "waits for the stage before")),
        "5": ("PENDING|JobHeldUser", JobState("pending", "held")),
        "6": (
            "PENDING|PartitionTimeLimit",
            JobState("pending", "will not start by itself: SLURM says PartitionTimeLimit"),
        ),
        "7": (
            "PENDING|ReqNodeNotAvail, UnavailableNodes:n1",
            JobState("pending", "in the queue: SLURM says ReqNodeNotAvail, UnavailableNodes:n1"),
        ),
        "8": ("CANCELLED|DependencyNeverSatisfied", JobState("skipped")),
        "9": ("CANCELLED|None", JobState("cancelled", "cancelled through SLURM")),
        "10": (
            "TIMEOUT|TimeLimit",
            JobState("failed", "out of time: SLURM ended it at its time limit"),
        ),
        "11": ("OUT_OF_MEMORY|None", JobState("failed", "out of memory: SLURM ended it")),
        "12": ("NEW_STATE|None", JobState("running", "new_state")),
    }
    calls = commands("squeue", "".join(f"{job}|{row}\n" for job, (row, _) in rows.items()))
    commands("sacct", code=1)
    told = slurm_client.states(list(rows))
    assert told == {job: state for job, (_, state) in rows.items()}
    assert len(calls.read_text().splitlines()) == 1


def test_what_squeue_has_forgotten_sacct_knows(commands) -> None:
    commands("squeue", "3|RUNNING|None\n")
    calls = commands("sacct", "1|CANCELLED by 0\n2|CANCELLED by 987654\n5|CANCELLED\n")
    told = slurm_client.states(["1", "2", "3", "4", "5"])
    assert told["1"] == JobState("cancelled", "cancelled through SLURM by root")
    assert told["2"] == JobState("cancelled", "cancelled through SLURM by user 987654")
    assert told["3"].state == "running"
    assert told["4"] == JobState("gone")
    assert told["5"] == JobState("cancelled", "cancelled by the scheduler itself")
    assert "--jobs=1,2,4,5" in calls.read_text()


def test_unknown_is_not_the_same_as_not_answered(commands) -> None:
    commands("squeue", errors="slurm_load_jobs error: Invalid job id specified", code=1)
    assert slurm_client.states(["1"]) == {"1": JobState("gone")}  # there is no sacct
    commands("sacct", errors="Slurm accounting storage is disabled", code=1)
    assert slurm_client.states(["1"]) == {"1": JobState("gone")}
    commands("sacct", errors="sacct: error: Problem talking to the database", code=1)
    assert slurm_client.states(["1"]) == {}
    commands("squeue", errors="Unable to contact slurm controller", code=1)
    assert slurm_client.states(["1"]) == {}


WARNED = "StartTime=2026-01-02T03:04:05 PreemptTime=2026-01-02T04:00:00"
WARNED_BEFORE = "StartTime=2026-01-02T03:04:05 PreemptTime=2026-01-02T03:00:00"


@pytest.mark.parametrize(
    ("shown", "restarts", "expected"),
    [
        ("JobState=RUNNING Reason=None Restarts=0", 0, None),
        ("JobState=RUNNING Reason=None Restarts=1", 1, None),
        ("JobState=COMPLETING Reason=None Restarts=0", 0, "cancelled"),
        ("JobState=COMPLETING Reason=None Restarts=1", 0, "pending"),
        ("JobState=COMPLETING Reason=JobLaunchFailure Restarts=0", 0, "failed"),
        ("JobState=COMPLETING Reason=NodeDown Restarts=0", 0, "failed"),
        ("JobState=COMPLETING Reason=TimeLimit Restarts=0", 0, "failed"),
        (f"JobState=RUNNING Reason=None Restarts=0 {WARNED}", 0, "failed"),
        (f"JobState=RUNNING Reason=None Restarts=0 {WARNED_BEFORE}", 0, None),
        ("JobState=RUNNING Reason=None Restarts=0 StartTime=2026-01-02 PreemptTime=None", 0, None),
        ("JobState=NODE_FAIL Reason=None Restarts=0", 0, "failed"),
        ("", 0, None),
    ],
)
def test_why_a_job_is_being_ended(
    commands, shown: str, restarts: int, expected: str | None
) -> None:
    commands("scontrol", f"JobId=5 JobName=x {shown} ExitCode=0:15")
    told = slurm_client.ending("5", restarts)
    assert (told.state if told else None) == expected
    assert (told is not None and told.is_warning) == (WARNED in shown)


def test_a_slurm_that_does_not_say_why_is_an_error(commands) -> None:
    commands("scontrol", errors="slurm_load_jobs error: Unable to contact", code=1)
    with pytest.raises(LauncherError, match="does not answer"):
        slurm_client.ending("5", 0)


def test_what_sbatch_says_is_the_message(commands) -> None:
    commands("sbatch", errors="sbatch: error: invalid partition: x\nsbatch: no\n", code=1)
    with pytest.raises(LauncherError, match=r"^sbatch: invalid partition: x; no$"):
        slurm_client.sbatch([], "#!/bin/sh\n")
    with pytest.raises(ConfigError, match=r"would not take fit: sbatch: invalid.*--dry-run shows"):
        check_fits("#!/bin/sh\n", "fit", {})
    with pytest.raises(LauncherError, match="there is no scontrol here"):
        slurm_client.release("3")


def test_memory_and_gpus_are_what_slurm_says_of_this_node(
    commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands("scontrol", "KeepAliveTime = 3\nKillWait                = 30 sec\n")
    environment = {
        "SLURM_JOB_ID": "40071",
        "SLURM_JOB_NODELIST": "gpu[08-09],cpu1",
        "SLURM_CPUS_ON_NODE": "4",
        "SLURM_MEM_PER_CPU": "500",
        "SLURM_JOB_GPUS": "0,1,2,3",
        "SLURM_STEP_GPUS": "2,3",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "SLURMD_NODENAME": "gpu09",
        "SLURM_NODEID": "1",
        "SLURM_RESTART_COUNT": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    job = make_launch(Path("/srv"), {}).jobs[0]

    with StopRequest() as stop, slurm.allocation(job, LaunchRecords(Path("/srv")), stop) as granted:
        assert not isinstance(granted, Outcome)
        assert (granted.gpus, granted.visible_gpus) == (("2", "3"), ("0", "1"))
        assert (granted.rank, granted.num_nodes, granted.restart_count) == (1, 3, 2)
        assert (granted.node, granted.master) == ("gpu09", "gpu08")
        assert stop.kill_after_s == 28
        assert (granted.record["mem_mb"], granted.record["master_port"]) == (2000, 20071)


def test_who_has_less_patience_than_the_guard_kills_through_it(tmp_path: Path) -> None:
    ignore = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    )
    command = [
        sys.executable,
        guard.__file__,
        "60",
        sys.executable,
        "-c",
        f"{ignore}; time.sleep(60)",
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with StopRequest() as stop, subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        stop.kill_after_s = 0.5
        stop.pass_on_to(process.stdin)
        start = time.monotonic()
        stop.request()
        assert process.wait(timeout=20) == 128 + signal.SIGKILL
        assert 0.4 < time.monotonic() - start < 5


def test_a_warning_is_no_wish_to_stop() -> None:
    with StopRequest() as stop:
        stop.warn("warned 90 s before its time limit")
        assert not stop.requested
        stop.request()
        assert (stop.why, stop.warned) == ("cancelled", "warned 90 s before its time limit")


def test_a_stage_does_not_take_itself_for_one_of_sruns_tasks() -> None:
    kept = {"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "0", "SLURM_CPUS_PER_TASK": "2", "PATH": "/bin"}
    task = ("NTASKS", "NTASKS_PER_NODE", "NPROCS", "PROCID", "LOCALID", "STEP_ID", "STEPID")
    inherited = {
        **kept,
        **{f"SLURM_{name}": "1" for name in task},
        "SRUN_DEBUG": "3",
        "PMI_FD": "4",
    }
    assert job_environment(inherited) == kept


class Queue:
    """A scheduler that says the same until it is told otherwise."""

    def __init__(self, **states: JobState) -> None:
        self.told = states

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        return {job_id: self.told[job_id] for job_id in job_ids if job_id in self.told}


@pytest.fixture
def records(tmp_path: Path) -> LaunchRecords:
    """Return a chain of two that was submitted as a1 and a2."""
    made = LaunchRecords.create(tmp_path / "one")
    files = {"output": "/x.out", "log": "/x.log", "metadata": "/x.metadata.json"}
    jobs = [{"stage": "prepare", "after": None}, {"stage": "fit", "after": "prepare"}]
    made.write_launch({"jobs": [{**job, **files} for job in jobs]})
    for stage, job_id in (("prepare", "a1"), ("fit", "a2")):
        made.append(LAUNCH, "submitted", stage=stage, job_id=job_id)
    made.append(LAUNCH, "released")
    return made


def told(records: LaunchRecords, queue: Queue) -> list[tuple[str, str]]:
    return [(each.state, each.reason) for each in chain_status(records, queue)]  # type: ignore[arg-type]


WAITS = JobState("pending", "waits for the stage before")


def test_what_the_records_lack_the_scheduler_tells(records: LaunchRecords) -> None:
    queue = Queue(a1=JobState("pending", "in the queue, behind others"), a2=WAITS)
    assert told(records, queue) == [
        ("pending", "in the queue, behind others"),
        ("pending", "waits for prepare"),
    ]
    queue.told["a1"] = JobState("running")
    assert told(records, queue)[0] == ("running", "starting")
    records.append("prepare", "started")
    assert told(records, queue)[0] == ("running", "")
    queue.told["a1"] = JobState("running", "suspended")
    assert told(records, queue)[0] == ("running", "suspended")
    queue.told["a1"] = JobState("failed", "its node failed")
    queue.told["a2"] = JobState("skipped")
    assert told(records, queue) == [("failed", "its node failed"), ("skipped", "prepare failed")]
    records.append("prepare", "ended", state="failed", reason="exit status 3", exit_code=3)
    assert told(records, queue) == [("failed", "exit status 3"), ("skipped", "prepare failed")]
    queue.told.clear()
    assert told(records, queue) == [("failed", "exit status 3"), ("skipped", "prepare failed")]


def test_a_job_that_is_put_back_is_pending_again(records: LaunchRecords) -> None:
    records.append("prepare", "started")
    back = JobState("pending", "in the queue")
    queue = Queue(a1=back, a2=WAITS)
    assert told(records, queue)[0] == ("pending", "put back; in the queue")  # it could not say so
    records.append("prepare", "requeued", reason="put back into the queue by SLURM")
    assert told(records, queue)[0][1] == "put back into the queue by SLURM; in the queue"
    assert job_status(records, "prepare").started is None
    records.append("prepare", "started")
    queue.told["a1"] = JobState("running")
    assert told(records, queue)[0] == ("running", "")


def test_a_run_that_comes_back_from_a_lost_node_does_not_speak_for_the_next(
    records: LaunchRecords,
) -> None:
    records.append("prepare", "started", attempt=0)
    records.append("prepare", "started", attempt=1)
    records.append("prepare", "ended", state="done", reason="", exit_code=0, attempt=0)
    assert job_status(records, "prepare").state == "running"
    records.append("prepare", "ended", state="failed", reason="x", exit_code=3, attempt=1)
    assert job_status(records, "prepare").exit_code == 3


def test_a_job_that_everybody_has_forgotten_has_ended(records: LaunchRecords) -> None:
    gone = JobState("gone")
    queue = Queue(a1=gone, a2=gone)
    never = "its job left the queue before it started; the scheduler has forgotten why"
    assert told(records, queue) == [("cancelled", never), ("skipped", "prepare was cancelled")]
    records.append("prepare", "started")
    killed = "its job was killed without a result; the scheduler has forgotten why"
    assert told(records, queue)[0] == ("failed", killed)
    records.append(LAUNCH, "cancel_requested", stages=["prepare", "fit"])
    assert told(records, queue) == [("cancelled", "cancelled")] * 2


def test_a_scheduler_that_does_not_answer_changes_nothing(records: LaunchRecords) -> None:
    records.append("prepare", "started")
    silent = "the scheduler does not answer"
    assert told(records, Queue()) == [("running", silent), ("pending", silent)]


def test_a_submission_that_was_cut_off_is_told(records: LaunchRecords) -> None:
    process = subprocess.Popen(["true"])
    gone = ProcessId.of(process.pid).to_record()
    process.wait()
    cut = LaunchRecords.create(records.directory.parent / "two")
    cut.write_launch({"jobs": records.read_launch()["jobs"], "launcher": gone})
    cut.append(LAUNCH, "submitted", stage="prepare", job_id="a1")
    left = "the launcher ended before the whole chain was submitted"
    assert told(cut, Queue(a1=JobState("pending", "held"))) == [
        ("pending", f"{left}; held"),
        ("cancelled", "the launcher ended before it was submitted"),
    ]
    cut.append(LAUNCH, "submitted", stage="fit", job_id="a2")
    cut.append(LAUNCH, "released")
    held = Queue(a1=JobState("pending", "held"), a2=WAITS)
    left = "the launcher ended before it let the chain start"
    assert told(cut, held) == [("pending", f"{left}; held"), ("pending", "waits for prepare")]
    cut.append(LAUNCH, "let_start")
    assert told(cut, held)[0] == ("pending", "held")  # by a person, then


def test_what_the_scheduler_said_stays_until_there_is_more_on_record(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(a1=JobState("pending", "in the queue"), a2=WAITS)
    watch = follow._Watch(records, queue, Interrupts(), Console())  # type: ignore[arg-type]
    for _ in range(3):
        assert watch.rows()[0].status.reason == "in the queue"
    queue.told["a1"] = JobState("running")
    assert watch.rows()[0].status.state == "pending"  # not asked again yet
    records.append("prepare", "started")
    assert watch.rows()[0].status.state == "running"
    monkeypatch.setattr(follow, "ASK_EVERY_S", 0)
    queue.told["a1"] = JobState("running", "suspended")
    assert watch.rows()[0].status.reason == "suspended"


def test_why_a_job_stays_in_the_queue_is_said_once(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "QUEUED_S", 0.05)
    monkeypatch.setattr(follow, "POLL_S", 0.02)
    monkeypatch.setattr(follow, "ASK_EVERY_S", 0.02)
    queue = Queue(a1=JobState("pending", "in the queue, behind others"), a2=WAITS)

    def end() -> None:
        queue.told["a1"] = JobState("cancelled", "cancelled through SLURM")

    threading.Timer(0.5, end).start()
    said = io.StringIO()
    console = Console(file=said, highlight=False, width=100)
    assert follow.follow(records, queue, Interrupts(), console) == 1  # type: ignore[arg-type]
    assert said.getvalue().count("pending   in the queue, behind others") == 1
    assert "fit              pending" not in said.getvalue()


@pytest.mark.parametrize(
    ("gres", "num_gpus"),
    [
        *((None, 0), ("", 0), ("gpu", 1), ("gpu:3", 3), ("gpu:a100", 1), ("gpu:a100:2", 2)),
        *(("gpu:a100:2(S:0-1)", 2), ("lustre:1,gpu:2", 2), ("gpu:a:1,gpu:b:2", 3), ("gpus:2", 0)),
    ],
)
def test_gpus_are_counted_however_they_are_asked_for(gres: str | None, num_gpus: int) -> None:
    launch = make_launch(Path("/srv"), {}, gres=gres)
    assert launch.jobs[0].settings.num_gpus == num_gpus
    run = nominal_run(launch.jobs[0], NoContainer(launch.config.container), {})
    assert len(run.gpus) == num_gpus


@pytest.mark.parametrize(("state", "exit_code"), [("done", 0), ("failed", 3)])
def test_the_exit_status_of_a_job_is_its_stages(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch, state: str, exit_code: int
) -> None:
    """srun may fail after a stage that is done, such as when submitit finds the disk full."""
    records.append("prepare", "started", attempt=0)
    records.append("prepare", "ended", state=state, reason="", exit_code=exit_code, attempt=0)
    (records.directory / "submitit").mkdir()
    monkeypatch.chdir(records.directory / "submitit")
    monkeypatch.setenv("SLURM_JOB_ID", "a1")
    assert slurm_epilogue.main(["prepare", "1"]) == exit_code


def test_the_script_of_a_run_that_was_lost_leaves_the_next_run_open(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node was cut off from SLURM, which ran the job again elsewhere: nobody there knows."""
    for attempt in (0, 1):
        records.append("prepare", "started", attempt=attempt)
    (records.directory / "submitit").mkdir()
    monkeypatch.chdir(records.directory / "submitit")
    monkeypatch.setenv("SLURM_JOB_ID", "a1")
    monkeypatch.setenv("SLURM_CONF", "/nonexistent/slurm.conf")
    before = records.events("prepare")
    assert slurm_epilogue.main(["prepare", "137"]) == 137
    assert records.events("prepare") == before
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert slurm_epilogue.main(["prepare", "137"]) == 137
    assert [each["attempt"] for each in records.events("prepare")] == [0, 1, 1]


def test_what_a_job_left_on_its_node_is_killed_and_nothing_else() -> None:
    marks = {"LAUNCHER_LAUNCH_ID": "mine", "SLURM_JOB_ID": "a1"}
    others = [{**marks, "LAUNCHER_LAUNCH_ID": "yours"}, {**marks, "SLURM_JOB_ID": "a11"}, {}]
    ours, *theirs = (
        subprocess.Popen(["sleep", "300"], env=each, start_new_session=True)
        for each in (marks, *others)
    )
    try:
        slurm_epilogue.kill_left("mine", "a1")
        assert ours.wait(20) == -signal.SIGKILL
        assert [each.poll() for each in theirs] == [None] * 3
    finally:
        for each in (ours, *theirs):
            each.kill()
            each.wait()


def test_a_stage_whose_guard_still_sees_to_it_may_save_its_work(tmp_path: Path) -> None:
    saves = "trap 'sleep 1; touch saved; exit' TERM; touch up; while :; do sleep 0.1; done"
    guarded = subprocess.Popen(
        [sys.executable, guard.__file__, "5", "bash", "-c", saves],
        cwd=tmp_path,
        env={**os.environ, "LAUNCHER_LAUNCH_ID": "mine", "SLURM_JOB_ID": "a1"},
        stdin=subprocess.PIPE,
    )
    with guarded:
        end = time.monotonic() + 20
        while not (tmp_path / "up").exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert guarded.stdin is not None
        guarded.stdin.close()  # as when the job process is killed
        slurm_epilogue.kill_left("mine", "a1")
    assert (tmp_path / "saved").exists()


def test_a_stage_that_slurm_skips_after_one_that_is_done_says_so(records: LaunchRecords) -> None:
    records.append("prepare", "started")
    records.append("prepare", "ended", state="done", reason="", exit_code=0)
    assert told(records, Queue(a2=JobState("skipped"))) == [
        ("done", ""),
        ("skipped", "the scheduler says that the job before it failed"),
    ]
