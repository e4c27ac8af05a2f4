"""Launches on a real SLURM: chains, resources, dry runs, secrets, several nodes, other users."""

from __future__ import annotations

import getpass
import hashlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.records import LAUNCH, LaunchRecords
from tests.cluster.rehearsed import Slurm, User
from tests.cluster.slurm_launches import Site, SlurmLaunch, until, wrap_commands, write_recipe
from tests.conftest import HOSTILE_NAME, lacks

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
both_slurms = pytest.mark.parametrize("slurm", ["plain", "accounting"], indirect=True)
accounting = pytest.mark.parametrize("slurm", ["accounting"], indirect=True)
CHAIN = ("--stages", "report", "train", "score")
REPOSITORY = Path(__file__).resolve().parents[2]


def refused(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit status and the message of a launch that is not to happen."""
    options = ["--recipe", str(site.recipe), "--container", "none", *arguments]
    status = main(options if "--cluster" in arguments else ["--cluster", "slurm", *options])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert site.queued() == []
    assert not (site.recipe / ".launches").exists()
    return status, said


@both_slurms
def test_a_chain_goes_on_by_itself(site: Site, slurm: Slurm, tmp_path: Path) -> None:
    log = tmp_path / "squeue.log"
    folder = wrap_commands(
        tmp_path, sbatch=f"squeue -h -t all -o '%T|%r|%Z' >> {log}; echo . >> {log}"
    )
    gate = tmp_path / "gate"
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "TINY_GATE": str(gate)}
    launch = site.launch(*CHAIN, environment=path)

    # The launcher is gone. What it said is what is in the queue.
    ids = launch.ids
    for stage, after in (("report", ""), ("train", "  after report"), ("score", "  after train")):
        assert f"  {stage:16} job {ids[stage]}{after}\n" in launch.said
    assert f"-m launcher cancel .launches/{launch.records.directory.name}\n" in launch.said
    for stage, upstream in (("train", "report"), ("score", "train")):
        job = launch.scontrol(stage)
        assert job["JobName"] == f"tiny.{stage}"
        assert job["Dependency"] == f"afterok:{ids[upstream]}(unfulfilled)"
        assert job["KillOInInvalidDependent"] == "Yes"
        assert job["Requeue"] == "1"
    assert launch.scontrol("report")["Dependency"] == "(null)"
    # Until the whole chain was there, its first job was held.
    looks = log.read_text().split(".\n")
    ours = f"|{launch.records.directory}/submitit"
    held = [
        [line.removesuffix(ours) for line in look.splitlines() if ours in line] for look in looks
    ]
    last = [look for look in held if len(look) == 2][-1]
    assert sorted(last) == ["PENDING|Dependency", "PENDING|JobHeldUser"]
    assert [each["event"] for each in launch.records.events(LAUNCH)][-3:] == [
        "submitted",
        "released",
        "let_start",
    ]

    launch.until_running("report")
    told = launch.status()
    assert [each.state for each in told.values()] == ["running", "pending", "pending"]
    assert told["train"].reason == "waits for report"
    shown = site.run("status").stdout
    assert re.search(r"^report +running ", shown, re.MULTILINE)
    assert re.search(r"^score +pending .*waits for train$", shown, re.MULTILINE)

    gate.touch()
    assert {each.state for each in launch.wait().values()} == {"done"}
    ends = launch.status()
    for before, after in itertools.pairwise(ends.values()):
        assert before.ended is not None
        assert after.started is not None
        assert before.ended < after.started
    assert "score   WER test 0.0 %" in site.run("status").stdout
    if slurm.accounting:
        asked = ("--jobs", ",".join(ids.values()), "--format=JobName,State,ExitCode")
        ask = ("sacct", "--noheader", "--allocations", "--parsable2", *asked)
        expected = [f"tiny.{stage}|COMPLETED|0:0" for stage in launch.stages]
        # The accounts follow a second or so behind, and a job's name may come last.
        until(lambda: slurm.run(*ask).splitlines() == expected, 30, f"{expected} in the accounts")
    _check_metadata(launch, slurm)


def _check_metadata(launch: SlurmLaunch, slurm: Slurm) -> None:
    for stage, upstream in (("report", None), ("train", "report"), ("score", "train")):
        metadata = launch.metadata(stage)
        job = metadata["job"]
        assert metadata["state"] == "done"
        assert (job["cluster"], job["job_id"]) == ("slurm", launch.ids[stage])
        assert job["dependency"] == (f"afterok:{launch.ids[upstream]}" if upstream else None)
        assert (job["node"] in slurm.nodes, job["partition"]) == (True, "main")
        assert job["resources_asked"]["nodes"] == 1
        allocated = job["resources_allocated"]
        assert (allocated["nodes"], allocated["cpus"]) == ([job["node"]], 1)
        assert (allocated["mem_mb"], allocated["gpus"]) == (500, [])
        assert allocated["account"] == ("root" if slurm.accounting else None)
        assert (job["exit_code"], job["signal"], job["restart_count"]) == (0, None, 0)
        times = [datetime.fromisoformat(job[f"{each}_time"]) for each in ("submit", "start", "end")]
        assert times == sorted(times)
        assert launch.file(stage, ".log").exists()
        assert f"[START] stage: {stage}" in launch.file(stage, ".out").read_text()


RESOURCES = """\
resources:
  cpus_per_task: 2
  timeout_min: 30
clusters:
  slurm:
    account: launcher-speech
    sbatch: {comment: "it's %j for \\"me\\"", exclude: [a3]}
    srun_args: [--label]
  local:
    poll_s: 3
stages:
  report:
    mem_gb: 0.5
    gres: "gpu:1"
    qos: launcher-night
    setup: ["export TINY_SETUP='a  b'", "cd /"]
    env: {TINY_ENV: "c  d"}
  train:
    partition: low
    gpus_per_node: 3
    nodes: 2
    timeout_min: 7
    requeue: false
"""


@pytest.fixture
def accounts(slurm: Slurm) -> Iterator[None]:
    """Have an account and a quality of service that are not the default."""
    manage = ("sacctmgr", "--immediate")
    slurm.run(*manage, "add", "qos", "launcher-night")
    slurm.run(*manage, "add", "account", "launcher-speech")
    mine = ("account=launcher-speech", "qos=normal,launcher-night")
    slurm.run(*manage, "add", "user", getpass.getuser(), *mine)
    yield
    slurm.run(*manage, "delete", "user", getpass.getuser(), "account=launcher-speech")
    slurm.run(*manage, "delete", "account", "launcher-speech")
    slurm.run(*manage, "delete", "qos", "launcher-night")


@accounting
@pytest.mark.usefixtures("accounts")
def test_every_stage_gets_what_is_asked_for_it(site: Site, slurm: Slurm) -> None:
    (site.recipe / "conf" / "launch.yaml").write_text(RESOURCES)
    launch = site.launch(
        *CHAIN,
        "stages.score.cpus_per_task=3",
        "stages.score.sbatch.exclude=a1",
        environment={"SBATCH_TIMELIMIT": "1", "SBATCH_QOS": "normal", "SLURM_CPUS_PER_TASK": "4"},
    )
    launch.wait()
    fields = {stage: launch.scontrol(stage) for stage in launch.stages}
    asked = {
        "report": {
            "Account": "launcher-speech",
            "QOS": "launcher-night",
            "Comment": 'it\'s %j for "me"',
            "ExcNodeList": "a3",
            "CPUs/Task": "2",
            "MinMemoryNode": "512M",
            "TresPerNode": "gres:gpu:1",
            "TimeLimit": "00:30:00",
            "Partition": "main",
            "NumNodes": "1",
            "Requeue": "1",
        },
        "train": {
            "Account": "launcher-speech",
            "Partition": "low",
            "NumNodes": "2",
            "CPUs/Task": "2",
            "TresPerNode": "gres:gpu:3",
            "TimeLimit": "00:07:00",
            "Requeue": "0",
        },
        "score": {"CPUs/Task": "3", "ExcNodeList": "a1", "TimeLimit": "00:30:00"},
    }
    for stage, wanted in asked.items():
        assert {key: fields[stage][key] for key in wanted} == wanted
    seen = launch.noted("report")["environ"]
    assert (seen["TINY_SETUP"], seen["TINY_ENV"]) == ("a  b", "c  d")
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["OMP_NUM_THREADS"]) == ("0", "2")
    assert launch.metadata("report")["job"]["gpus"] == ["0"]
    allocated = launch.metadata("report")["job"]["resources_allocated"]
    assert (allocated["cpus"], allocated["mem_mb"], allocated["account"]) == (
        2,
        512,
        "launcher-speech",
    )
    assert launch.metadata("score")["job"]["resources_asked"]["cpus_per_task"] == 3
    for rank in (0, 1):
        assert launch.noted("train", rank)["environ"]["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    assert "CUDA_VISIBLE_DEVICES" not in launch.noted("score")["environ"]
    said = (launch.records.directory / "submitit" / f"{launch.ids['report']}_0_log.out").read_text()
    assert said.startswith("0: submitit INFO")  # srun --label


@both_slurms
def test_what_became_of_a_job_when_the_queue_has_forgotten_it(
    site: Site, slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without accounts, SLURM forgets a job after MinJobAge, of five minutes by default."""
    launch = site.launch("--stages", "train", "score", "cluster.sbatch.begin='now+1hour'")
    slurm.run("scancel", launch.ids["train"])
    launch.wait()
    unknown = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    wrapped = wrap_commands(tmp_path, squeue=unknown)
    monkeypatch.setenv("PATH", f"{wrapped}:{os.environ['PATH']}")
    forgotten = "its job left the queue before it started; the scheduler has forgotten why"
    reason = "cancelled through SLURM by root" if slurm.accounting else forgotten
    told = launch.status()
    assert (told["train"].state, told["train"].reason) == ("cancelled", reason)
    assert (told["score"].state, told["score"].reason) == ("skipped", "train was cancelled")


REFUSED = {
    "unknown partition": (
        ["stages.train.partition=nope"],
        r"SLURM would not take train: sbatch: invalid partition specified: nope; .*Invalid "
        r"partition name specified\. It asks for nodes=1, partition=nope\. "
        r"There is: main: .* What a stage asks for is set with stages\.train\.KEY=VALUE",
    ),
    "too many GPUs": (
        ["stages.train.gpus_per_node=5"],
        r"would not take train: sbatch: .*Requested node configuration is not available\. "
        r"It asks for nodes=1, gpus_per_node=5\. "
        r"There is: main: 3 nodes with 4 CPUs, .* GiB, gpu:4; low: ",
    ),
    "too many nodes": (
        ["resources.nodes=4"],
        r"would not take report: sbatch: .*(not available|More processors)",
    ),
    "too much memory": (
        ["resources.mem_gb=7.5"],
        r"would not take report: sbatch: .*not available",
    ),
    "too many CPUs": (
        ["stages.score.cpus_per_task=5"],
        r"would not take score: sbatch: .*Requested node configuration is not available",
    ),
    "a GPU that is not there": (
        ["stages.train.gres='gpu:h100:1'"],
        r"would not take train: sbatch: .*not available",
    ),
    "unknown feature": (
        ["cluster.constraint=a100"],
        r"would not take report: sbatch: .*Invalid feature specification",
    ),
    "unknown option of sbatch": (
        ["cluster.sbatch.exclood=n1"],
        r"would not take report: sbatch: unrecognized option '--exclood=n1'",
    ),
    "option of the launcher's own, abbreviated": (
        ["cluster.sbatch.arra='0-2'"],
        r"sbatch\.arra cannot be set: sbatch takes it for --array",
    ),
    "option of the launcher's own": (
        ["cluster.sbatch.dependency='afterok:1'"],
        r"sbatch\.dependency cannot be set: the launcher itself gives --dependency to each job",
    ),
    "GPUs twice": (
        ["resources.gpus_per_node=1", "stages.train.gres='gpu:1'"],
        r"train asks for GPUs twice: gres=gpu:1 and gpus_per_node=1\. Leave one of them out",
    ),
    "unknown key": (
        ["stages.train.partitoin=main"],
        r"stages\.train\.partitoin: cluster slurm has no setting 'partitoin' for a stage\. "
        r"Did you mean 'partition'\?",
    ),
    "out of its range": (
        ["stages.train.mem_gb=0"],
        r"stages\.train\.mem_gb is 0; it is to be a number from 0\.01 to 1e\+06, in GiB",
    ),
    "of the wrong type": (["resources.nodes=two"], r"resources\.nodes=two.*'two'.*"),
    "key of another cluster": (
        ["--cluster", "local", "stages.train.partition=main"],
        r"stages\.train\.partition: cluster local has no setting 'partition' for a stage\. "
        r"It is a setting of cluster slurm: use --cluster slurm, or keep it for that one, in "
        r"conf/launch\.yaml under clusters\.slurm\. Settings of a stage: ",
    ),
    "key of another cluster for all": (
        ["--cluster", "local", "cluster.partition=main"],
        r"no setting 'cluster\.partition'\. It is a setting of cluster slurm: use --cluster slurm",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_refused_before_anything_is_queued(
    site: Site, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    arguments, message = REFUSED[mistake]
    status, said = refused(site, capsys, *CHAIN, *arguments)
    assert (status, len(said.splitlines())) == (2, 1)
    assert re.search(f"^launcher: .*{message}", said), said


def test_without_slurm_the_launcher_says_where_to_go(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    status = main(["--cluster", "slurm", "--container", "none", "--recipe", str(site.recipe)])
    said = capsys.readouterr().err
    assert status == 1
    assert "there is no sbatch here. Type the command on a login node" in said


def scripts_of(shown: str) -> dict[str, str]:
    """Return the scripts in what --dry-run prints, by stage."""
    found = re.findall(r"^(\w+)(?:, after \w+)?\n(?:  .*\n)*?  sbatch .*<<'SCRIPT'\n", shown, re.M)
    return dict(
        zip(found, re.findall(r"<<'SCRIPT'\n(.*?)^SCRIPT\n", shown, re.M | re.S), strict=True)
    )


def commands_of(shown: str) -> list[list[str]]:
    """Return the commands in what --dry-run prints, as a shell reads them."""
    return [
        shlex.split(text.replace("\\\n", " "))
        for text in re.findall(r"^  command  ((?:.*\\\n)*.*)$", shown, re.M)
    ]


def test_a_dry_run_shows_what_is_sent_byte_for_byte(site: Site, tmp_path: Path) -> None:
    names = ("sbatch", "scontrol", "squeue", "sacct", "scancel", "sinfo", "srun")
    asked = tmp_path / "asked"
    folder = wrap_commands(tmp_path, **{name: f"echo {name} >> {asked}" for name in names})
    gate = tmp_path / "gate"
    settings = [
        "stages.train.gpus_per_node=2",
        "stages.train.setup=[\"export A='it is'\"]",
        "stages.score.sbatch.comment='it\\'s \\\\ me'",
        "launch_name='to night'",
    ]
    options = ["--cluster", "slurm", "--container", "none", *CHAIN, *settings]
    environment = {"TINY_GATE": str(gate), "SBATCH_ACCOUNT": "speech"}
    before = sorted(site.recipe.rglob("*"))
    path = {**environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    dry = site.run(*options, "--dry-run", environment=path)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert not asked.exists()
    assert sorted(site.recipe.rglob("*")) == before

    launch = site.launch(*CHAIN, *settings, environment=environment)
    for stage, script in scripts_of(dry.stdout).items():
        job_id = launch.ids[stage]
        kept = launch.records.directory / "submitit" / f"{job_id}_submission.sh"
        assert kept.read_bytes() == script.encode()
        sent = launch.slurm.run("scontrol", "write", "batch_script", job_id, "-")
        assert sent.removesuffix("\n") == script.removesuffix("\n")
    assert "#SBATCH --account=speech\n" in scripts_of(dry.stdout)["score"]
    assert list(scripts_of(dry.stdout)) == launch.stages
    gate.touch()
    launch.wait()
    for stage, command in zip(launch.stages, commands_of(dry.stdout), strict=True):
        assert launch.metadata(stage)["job"]["command"] == command
    assert launch.scontrol("score")["Comment"] == r"it's \\ me"


@pytest.mark.parametrize(
    "name",
    ["back\\slash \\n and %j", "$HOME `id` ; # & * ? [a] {b} ~ ! (c)", "-dash, comma =", "ends \\"],
)
def test_any_folder_will_do(slurm: Slurm, tmp_path: Path, name: str, site: Site) -> None:
    other = Site(slurm, write_recipe(tmp_path / name / "tiny" / "asr"))
    launch = other.launch("--stages", "train", "score", "launch_name=x")
    try:
        assert {each.state for each in launch.wait().values()} == {"done"}
        said = launch.records.directory / "submitit" / f"{launch.ids['train']}_0_log.out"
        assert "Job completed successfully" in said.read_text()
        assert [
            path.name for path in tmp_path.iterdir() if path.name not in (name, HOSTILE_NAME)
        ] == []
    finally:
        other.close()


def test_a_launch_from_inside_a_job_inherits_nothing_of_it(
    site: Site, slurm: Slurm, tmp_path: Path
) -> None:
    outer = {
        "PYTHONPATH": str(REPOSITORY),
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_GRES": "gpu:4",
        "SBATCH_JOB_NAME": "other",
        "TINY_GATE": "",
    }
    options = ["--cluster", "slurm", "--container", "none", *CHAIN, "launch_name=inner"]
    launcher = shlex.join([sys.executable, "-m", "launcher", *options])
    output = tmp_path / "outer.out"
    task = shlex.join(["srun", "--nodes=1", "--ntasks=1", "bash", "-c", launcher])
    wanted = ["--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2", "--gpus-per-node=2"]
    done = subprocess.run(
        ["sbatch", "--wait", "--time=5", "--mem=2000", *wanted, f"--output={output}"],
        input=f"#!/bin/bash\n{task}\n",
        env={**os.environ, **outer},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=site.recipe,
    )
    assert done.returncode == 0, done.stderr + output.read_text()
    launch = SlurmLaunch(slurm, site.recipe, LaunchRecords(site.recipe / ".launches" / "inner"))
    site.launches.append(launch)
    assert {each.state for each in launch.wait().values()} == {"done"}
    for stage in launch.stages:
        job = launch.scontrol(stage)
        assert (job["JobName"], job["NumNodes"], job["CPUs/Task"]) == (f"tiny.{stage}", "1", "1")
        assert (job["TimeLimit"] != "00:01:00", "TresPerNode" in job) == (True, False)
        assert job["MinMemoryCPU"] == "500M"
        seen = launch.noted(stage)["environ"]
        assert (seen["SLURM_JOB_ID"], seen["SLURM_NNODES"]) == (launch.ids[stage], "1")
        assert not {"CUDA_VISIBLE_DEVICES", "SLURM_CPUS_PER_TASK", "SLURM_JOB_GPUS"} & set(seen)
        allocated = launch.metadata(stage)["job"]["resources_allocated"]
        assert (allocated["cpus"], allocated["gpus"]) == (1, [])


def test_a_secret_reaches_the_stage_and_no_file(site: Site, slurm: Slurm, tmp_path: Path) -> None:
    secret = "hf_" + os.urandom(12).hex()
    gate = tmp_path / "gate"
    environment = {"HF_TOKEN": secret, "TINY_GATE": str(gate)}
    options = [*CHAIN, "launch_name=secret"]
    dry = site.run(
        "--cluster", "slurm", "--container", "none", *options, "--dry-run", environment=environment
    )
    launch = site.launch(*options, environment=environment)
    shown = [dry.stdout, dry.stderr, launch.said]
    for stage in launch.stages:
        shown += [
            slurm.run("scontrol", "show", "job", "--details", launch.ids[stage]),
            slurm.run("scontrol", "write", "batch_script", launch.ids[stage], "-"),
        ]
    launch.until_running("report")
    shown += [site.run("status").stdout, _command_lines()]
    gate.touch()
    launch.wait()
    assert not any(secret in text for text in shown)
    assert "HF_TOKEN" in dry.stdout  # by its name
    for stage in launch.stages:
        told = launch.noted(stage)["token_sha256"]
        assert told == hashlib.sha256(secret.encode()).hexdigest()
    searched = 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            searched += 1
            assert secret.encode() not in path.read_bytes(), path
    assert searched > 50


def _command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_another_user_launches_as_root_does(
    slurm: Slurm, site: Site, non_root_user: User, user_folder: Path
) -> None:
    python, python_path = _python_of(non_root_user)
    recipe = write_recipe(user_folder / HOSTILE_NAME / "tiny" / "asr")
    for path in (user_folder / HOSTILE_NAME, *(user_folder / HOSTILE_NAME).rglob("*")):
        shutil.chown(path, non_root_user.name)
    theirs = Site(slurm, recipe, python=python, python_path=python_path, user=non_root_user)
    launch = theirs.launch("--stages", "train", "wait", "score")
    try:
        launch.until_running("wait")
        job = launch.scontrol("wait")
        assert job["UserId"] == f"{non_root_user.name}({non_root_user.uid})"
        assert launch.noted("wait")["environ"]["HOME"] == str(non_root_user.home)
        cancelled = theirs.run("cancel")
        assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
        ended = launch.wait()
        assert [each.state for each in ended.values()] == ["done", "cancelled", "cancelled"]
        for path in [launch.records.directory, *recipe.rglob("*")]:
            assert path.lstat().st_uid == non_root_user.uid, path
        metadata = launch.metadata("train")
        assert (metadata["state"], metadata["job"]["job_id"]) == ("done", launch.ids["train"])
    finally:
        theirs.close()


def _python_of(user: User) -> tuple[str, tuple[str, ...]]:
    """Return a Python that a user may run, and where it finds the launcher and its libraries."""
    libraries = sysconfig.get_path("purelib")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        probe = user.command("env", f"PYTHONPATH={libraries}", python, "-c", "import submitit")
        if subprocess.run(probe, capture_output=True, cwd="/").returncode == 0:
            return python, (str(REPOSITORY), libraries)
    lacks(f"{user.name} may not run {sys.executable}, and there is no /usr/bin/{version}")


def test_a_stage_on_two_nodes_runs_on_both(site: Site) -> None:
    launch = site.launch(
        "--stages", "train", "score", "stages.train.nodes=2", "stages.train.cpus_per_task=2"
    )
    assert {each.state for each in launch.wait().values()} == {"done"}
    seen = [launch.noted("train", rank)["environ"] for rank in (0, 1)]
    nodes = launch.metadata("train")["job"]["resources_allocated"]["nodes"]
    assert [each["SLURMD_NODENAME"] for each in seen] == nodes
    port = str(20000 + int(launch.ids["train"]) % 20000)
    for rank, environ in enumerate(seen):
        assert (environ["NODE_RANK"], environ["NNODES"]) == (str(rank), "2")
        assert (environ["MASTER_ADDR"], environ["MASTER_PORT"]) == (nodes[0], port)
        assert not {"SLURM_NTASKS", "SLURM_PROCID"} & set(environ)
    assert "NODE_RANK" not in launch.noted("score")["environ"]
    assert launch.file("train", ".out").exists()
    assert "stage: train" in launch.file("train_rank1", ".out").read_text()
    metadata = launch.metadata("train")
    assert (metadata["job"]["node"], metadata["job"]["num_nodes"]) == (nodes[0], 2)
    assert metadata["results"] == {"steps": 3}
    assert launch.metadata("train_rank1")["job"]["node"] == nodes[1]
    names = {path.name for path in launch.file("train", "").parent.glob("train*")}
    assert "train1.log" not in names  # the ranks have not taken each other's files


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_fails_ends_the_stage_on_every_node(site: Site, rank: str) -> None:
    launch = site.launch(
        *("--stages", "train", "score", "stages.train.nodes=2"),
        environment={"TINY_FAIL_RANK": rank},
    )
    ended = launch.wait(40)
    node = launch.metadata("train")["job"]["resources_allocated"]["nodes"][1]
    reason = "exit status 3" if rank == "0" else f"rank 1 on {node}: exit status 3"
    assert (ended["train"].state, ended["train"].exit_code) == ("failed", 3)
    assert ended["train"].reason == reason
    assert (ended["score"].state, ended["score"].reason) == ("skipped", "train failed")
    assert launch.metadata("train")["job"]["reason"] == reason
    assert launch.scontrol("train")["ExitCode"] == "3:0"
