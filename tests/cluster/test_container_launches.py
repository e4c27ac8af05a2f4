"""Launches whose stages run in containers: paths, GPUs, secrets, code, and images gone bad."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.images.lock import read_lock
from launcher.records import LaunchRecords
from launcher.status import JobStatus, chain_status
from tests.cluster.faults.table import CANCELLED, PROCESS_KILLED
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.rehearsed import Rehearsal, Slurm
from tests.cluster.slurm_launches import until, write_recipe
from tests.conftest import HOSTILE_NAME
from tests.launcher.test_local import disclaim

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]
GPU = re.compile(r"fakegpu(\d)")


@dataclass
class Launches:
    """A recipe in a git work tree, and the launches made of it."""

    recipe: Path
    environment: dict[str, str]
    lock_file: Path
    cache_dir: Path
    made: list[LaunchRecords] = field(default_factory=list)
    prefix: tuple[str, ...] = ()  # stands before the launcher's command

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m launcher`` in the recipe's folder."""
        settings = [f"images_lock='{self.lock_file}'", f"image_cache='{self.cache_dir}'"]
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "launcher", *arguments, *settings],
            cwd=self.recipe,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def launch(self, *arguments: str, **variables: str) -> LaunchRecords:
        """Submit a launch that is to be taken."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        records = LaunchRecords(self.recipe / done.stdout.splitlines()[0].removeprefix("launch "))
        self.made.append(records)
        return records

    def wait(self, records: LaunchRecords, timeout_s: float = 120) -> dict[str, JobStatus]:
        """Wait until every stage has ended."""
        until(lambda: all(each.has_ended for each in chain_status(records)), timeout_s)
        return {each.stage: each for each in chain_status(records)}

    def file(self, stage: str, suffix: str) -> Path:
        return self.recipe / "exp" / "tiny" / f"{stage}{suffix}"

    def metadata(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file(stage, ".metadata.json").read_text())
        return found

    def noted(self, stage: str) -> dict[str, Any]:
        path = self.recipe / "exp" / "tiny" / "noted" / f"{stage}.0.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def containers(self) -> list[str]:
        """Return the names of the Docker containers that are left of these launches."""
        names = subprocess.run(
            ["docker", "ps", "--all", '--format={{.Names}} {{.Label "launcher.launch"}}'],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        ours = {records.directory.name for records in self.made}
        return [name.split()[0] for name in names if name.split()[-1] in ours]

    def close(self) -> None:
        for records in self.made:
            command = ["cancel", "--force", str(records.directory)]
            subprocess.run(
                [sys.executable, "-m", "launcher", *command],
                cwd=self.recipe,
                env=self.environment,
                capture_output=True,
                timeout=60,
            )


def setting(key: str, value: object) -> str:
    """Return ``key=value`` as the launcher's command line takes any value."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", str(value))
    return f"{key}='{escaped}'"


def in_git(folder: Path) -> Path:
    """Make a git work tree of a folder, everything in it committed."""
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    (folder / ".gitignore").write_text("exp/\n.launches/\n__pycache__/\n")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def launches(tmp_path: Path, rehearsal: Rehearsal, cpu_image: CpuImage) -> Iterator[Launches]:
    """Return the recipe in a folder with a hostile name, and what a launch of it needs."""
    recipe = in_git(write_recipe(tmp_path / HOSTILE_NAME))
    environment = {**os.environ, **rehearsal.environment, "PYTHONPATH": str(REPOSITORY)}
    made = Launches(recipe, environment, cpu_image.lock_file, cpu_image.cache_dir)
    yield made
    made.close()


@pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer", "charliecloud"])
def test_a_launch_from_a_hostile_path(launches: Launches, runtime: str) -> None:
    launches.recipe.joinpath("conf", "a b.yaml").write_text("exp_dir: ${recipe_dir}/exp/tiny\n")
    arguments = ["--stages", "report", "score", "--training_config", "conf/a b.yaml"]
    value = 'it\'s "me", $HOME: a=b \\n é'
    arguments.append(setting("env.GREETING", value))
    records = launches.launch("--container", runtime, *arguments)
    states = {stage: status.state for stage, status in launches.wait(records).items()}
    assert states == {"report": "done", "score": "done"}, launches.file(
        "report", ".out"
    ).read_text()
    noted = launches.noted("report")
    assert noted["environ"]["GREETING"] == value
    assert noted["argv"][1:3] == ["--stages", "report"]
    assert noted["uid"] == os.getuid()
    job = launches.metadata("score")["job"]
    assert (job["cluster"], job["runtime"], job["exit_code"]) == ("local", runtime, 0)
    assert job["runtime_version"].startswith(runtime)
    assert job["image_verified"].startswith("sha256:")
    for suffix in (".log", ".out", ".metadata.json"):
        written = launches.file("score", suffix).stat()
        assert (written.st_uid, written.st_gid) == (os.getuid(), os.getgid())


def test_what_a_runtime_cannot_express_is_refused_with_those_that_can(launches: Launches) -> None:
    asks = ["cluster.gpus=[0]", "resources.gpus_per_node=1", "image=cpu"]
    done = launches.run("--container", "charliecloud", "--stages", "report", *asks)
    assert done.returncode == 2
    assert "charliecloud does not give GPUs" in done.stderr
    assert "--container apptainer" in done.stderr
    assert not (launches.recipe / ".launches").exists()


def test_editing_while_a_job_waits_changes_nothing(launches: Launches, tmp_path: Path) -> None:
    gate = launches.recipe / "exp" / "gate"
    source = launches.recipe / "src" / "tiny_system.py"
    source.write_text(source.read_text() + "# not committed yet\n")
    records = launches.launch(
        "--container", "docker", "--stages", "report", "score", setting("env.TINY_GATE", gate)
    )
    source.write_text("raise RuntimeError('edited')\n")
    (launches.recipe / "run.py").write_text("raise RuntimeError('edited')\n")
    gate.parent.mkdir(exist_ok=True)
    gate.touch()
    states = [status.state for status in launches.wait(records).values()]
    assert states == ["done", "done"], launches.file("score", ".out").read_text()
    record = records.read_launch()["snapshot"]
    assert record["mode"] == "git"
    assert record["roots"][0]["changed"] == ["src/tiny_system.py"]
    metadata = json.loads(launches.file("score", ".metadata.json").read_text())
    assert metadata["git"]["commit"] == record["roots"][0]["commit"]  # also where git is not
    assert metadata["git"]["dirty"]
    assert metadata["container"]["runtime"] == "docker"


def test_a_stage_sees_the_gpus_of_its_job_and_no_others(launches: Launches, slurm: Slurm) -> None:
    """Podman with CDI over the fake devices; the ids are those that SLURM allocated."""
    records = []
    for number in range(2):
        records.append(
            launches.launch(
                *("--cluster", "slurm", "--container", "podman", "--stages", "report"),
                *("resources.gpus_per_node=2", "cluster.sbatch.nodelist=n2", "image=cpu"),
                setting("env.TINY_GATE", launches.recipe / "exp" / "gate"),
                f"launch_name=gpus{number}",
            )
        )
        disclaim(launches.recipe)
    # The second of the two starts while the first holds its pair: that the ids differ is the point.
    until(lambda: all(each.events("report") for each in records), 60, "that both begin")
    launches.recipe.joinpath("exp", "gate").touch()
    pairs = []
    for each in records:
        assert launches.wait(each)["report"].state == "done"
    for suffix in ("1", ""):
        job = json.loads(launches.file(f"report{suffix}", ".metadata.json").read_text())["job"]
        out = launches.file(f"report{suffix}", ".out").read_text()
        seen = re.search(r"^devices: (.*)$", out, re.MULTILINE)[1]
        pairs.append(sorted(job["gpus"]))
        assert sorted(GPU.findall(seen)) == pairs[-1]
    assert sorted(pairs[0] + pairs[1]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("runtime", ["docker", "apptainer"])
def test_a_secret_is_found_nowhere_on_disk(launches: Launches, slurm: Slurm, runtime: str) -> None:
    secret = f"hf_{secrets.token_hex(16)}"
    records = launches.launch(
        *("--cluster", "slurm", "--container", runtime, "--stages", "report"),
        HF_TOKEN=secret,
        NOT_ALLOWED="to be seen",
    )
    assert launches.wait(records)["report"].state == "done"
    noted = launches.noted("report")  # which keeps no more of it than this
    assert noted["token_sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert "NOT_ALLOWED" not in noted["environ"]
    found = [
        path
        for path in launches.recipe.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert found == []
    shown = launches.run(
        *("--cluster", "slurm", "--container", runtime, "--stages", "report", "--dry-run"),
        HF_TOKEN=secret,
    )
    assert "secrets  HF_TOKEN" in shown.stdout
    assert secret not in shown.stdout + shown.stderr
    assert launches.metadata("report")["job"]["secrets"] == ["HF_TOKEN"]


def test_a_tampered_image_stops_the_stage_with_both_digests(
    launches: Launches, slurm: Slurm, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(launches.cache_dir, cache, ignore=shutil.ignore_patterns("*.sqsh*"))
    cache.chmod(0o700)
    launches.cache_dir = cache
    gate = launches.recipe / "exp" / "gate"
    records = launches.launch(
        *("--cluster", "slurm", "--container", "apptainer", setting("env.TINY_GATE", gate)),
        *("--stages", "report", "train", "score"),
    )
    until(lambda: launches.file("report", ".out").exists(), 60, "the first stage")
    until(lambda: "START" in launches.file("report", ".out").read_text(), 60, "the first stage")
    sif = next(cache.glob("*.sif"))
    pinned = f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}"
    with sif.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    gate.touch()
    status = launches.wait(records)
    assert [each.state for each in status.values()] == ["done", "failed", "skipped"]
    digests = re.findall(r"sha256:[0-9a-f]{64}", status["train"].reason)
    assert pinned in digests
    assert f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}" in digests
    job = launches.metadata("train")["job"]
    assert job["exit_code"] is None
    assert launches.metadata("train")["state"] == "failed"
    assert status["train"].reason in launches.file("train", ".out").read_text()


def test_an_image_that_is_nowhere_is_said_before_anything_is_queued(
    launches: Launches, tmp_path: Path
) -> None:
    absent = "localhost:5000/nothing/here@sha256:" + "0" * 64
    done = launches.run("--container", "docker", "--stages", "report", f"image='{absent}'")
    assert done.returncode == 1
    assert absent in done.stderr
    assert "Traceback" not in done.stderr
    assert not (launches.recipe / ".launches").exists()


def test_an_image_that_is_gone_from_the_node_is_the_reason(
    launches: Launches, base_image: str, tmp_path: Path
) -> None:
    """Of an image that was never pushed there is nothing to pull."""
    docker = ["docker", "--log-level=error"]
    container = subprocess.run(
        [*docker, "create", base_image, "true"], check=True, capture_output=True, text=True
    ).stdout.strip()
    commit = [*docker, "commit", "--message", str(tmp_path), container]
    image = subprocess.run(commit, check=True, capture_output=True, text=True).stdout.strip()
    gate = launches.recipe / "exp" / "gate"
    records = launches.launch(
        *("--container", "docker", "--stages", "report", "score", setting("env.TINY_GATE", gate)),
        f"stages.score.image='{image}'",
    )
    for command in (["rm", container], ["rmi", image]):
        subprocess.run([*docker, *command], check=True, capture_output=True)
    gate.parent.mkdir(exist_ok=True)
    gate.touch()
    status = launches.wait(records)
    assert [each.state for each in status.values()] == ["done", "failed"]
    assert image in status["score"].reason
    assert status["score"].reason in launches.file("score", ".out").read_text()
    assert launches.metadata("score")["job"]["reason"] == status["score"].reason


def test_a_container_that_never_starts_leaves_its_reason(launches: Launches) -> None:
    records = launches.launch(
        *("--container", "docker", "--stages", "report", "score"),
        "container.run_options=[--no-such-option]",
    )
    status = launches.wait(records)
    assert [each.state for each in status.values()] == ["failed", "skipped"]
    assert status["report"].exit_code == 125
    assert "unknown flag: --no-such-option" in launches.file("report", ".out").read_text()
    metadata = launches.metadata("report")
    assert (metadata["state"], metadata["job"]["exit_code"]) == ("failed", 125)


def test_an_image_by_tag_is_refused_or_said_so_in_every_record(launches: Launches) -> None:
    pin = read_lock(launches.lock_file)["cpu"]
    tag = f"{pin.repository}:{pin.image_id.removeprefix('sha256:')[:12]}"
    arguments = ["--container", "docker", "--stages", "report", f"image='{tag}'"]
    done = launches.run(*arguments)
    assert done.returncode != 0
    assert "--allow-unpinned" in done.stderr
    assert not (launches.recipe / ".launches").exists()
    records = launches.launch(*arguments, "--allow-unpinned")
    assert launches.wait(records)["report"].state == "done"
    assert launches.metadata("report")["job"]["image"]["unpinned"] is True
    (job,) = records.read_launch()["jobs"]
    assert job["image"]["unpinned"] is True
    assert "is not pinned" in records.read_launch()["notices"][-1]


@pytest.mark.parametrize(
    "how",
    [
        *(
            pytest.param(how, marks=pytest.mark.faults(CANCELLED))
            for how in ("cancel", "cancel --force", "pause, cancel --force")
        ),
        *(
            pytest.param(how, marks=pytest.mark.faults(PROCESS_KILLED))
            for how in ("kill the client", "kill the job")
        ),
    ],
)
def test_no_container_is_left(launches: Launches, how: str) -> None:
    """Of a stage that does not listen to SIGTERM."""
    grace = "stop_grace_s=300" if "force" in how else "stop_grace_s=2"
    records = launches.launch("--container", "docker", "--stages", "hardened", "score", grace)
    until(lambda: (launches.recipe / "exp/tiny/noted/hardened.0.json").exists(), 60, "the start")
    assert len(launches.containers()) == 1
    started = next(each for each in records.events("hardened") if each["event"] == "started")
    if "cancel" in how:
        if "pause" in how:
            docker = ["docker", "pause", *launches.containers()]
            subprocess.run(docker, env=launches.environment, check=True, timeout=30)
        force = ["--force"] if "force" in how else []
        cancel = [sys.executable, "-m", "launcher", "cancel", str(records.directory), *force]
        done = subprocess.run(cancel, cwd=launches.recipe, env=launches.environment, timeout=60)
        assert done.returncode == 0
        assert not force or not launches.containers()
    elif how == "kill the client":
        children = Path(f"/proc/{started['pid']}/task/{started['pid']}/children").read_text()
        clients = [
            int(pid)
            for pid in children.split()
            if "docker" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        os.kill(clients[0], signal.SIGKILL)
    else:
        os.kill(started["pid"], signal.SIGKILL)
    until(lambda: not launches.containers(), 10, "the end of the container")
    states = [status.state for status in launches.wait(records).values()]
    assert states == ["cancelled" if "cancel" in how else "failed", states[1]]
    assert states[1] in ("cancelled", "skipped")
    time.sleep(0.5)
    assert stat.S_IMODE(records.directory.stat().st_mode) == 0o700


@pytest.mark.faults(CANCELLED)
@pytest.mark.parametrize("runtime", ["apptainer", "docker", "podman"])
def test_a_stage_on_slurm_has_its_image_until_it_has_saved(
    launches: Launches, slurm: Slurm, runtime: str
) -> None:
    """A signal to every process of the job would end what serves a SIF file as well."""
    options = ("--cluster", "slurm", "--container", runtime, "--stages", "saves", "score")
    records = launches.launch(*options, "image=cpu")
    until(lambda: (launches.recipe / "exp/tiny/noted/saves.0.json").exists(), 60, "the start")
    cancel = [sys.executable, "-m", "launcher", "cancel", str(records.directory)]
    done = subprocess.run(cancel, cwd=launches.recipe, env=launches.environment, timeout=60)
    assert done.returncode == 0
    assert (launches.recipe / "exp/tiny/noted/saved").exists(), launches.file(
        "saves", ".out"
    ).read_text()
    told = [(each.state, each.reason) for each in launches.wait(records).values()]
    assert told == [("cancelled", "cancelled (exit status 7)"), ("cancelled", "cancelled")]


def test_dry_run_shows_the_command_that_is_run(launches: Launches, slurm: Slurm) -> None:
    import shlex

    arguments = ["--cluster", "slurm", "--container", "docker", "--stages", "report"]
    shown = launches.run(*arguments, "launch_name=same", "--dry-run").stdout
    assert not (launches.recipe / ".launches").exists()
    records = launches.launch(*arguments, "launch_name=same")
    assert launches.wait(records)["report"].state == "done"
    (script,) = records.directory.glob("submitit/*_submission.sh")
    sent = script.read_text()
    assert sent in shown
    command = re.search(r"^  command  ((?:.*\\\n)*.*)$", shown, re.MULTILINE)[1]
    assert (
        shlex.split(command.replace("\\\n", " ")) == launches.metadata("report")["job"]["command"]
    )
