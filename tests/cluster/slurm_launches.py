"""Launches on the rehearsal's SLURM, of a recipe whose stages do what tests want of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from launcher.clusters.slurm import Settings, SlurmCluster
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus, chain_status, job_status
from tests.cluster.rehearsed import Slurm, User

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("report", "train", "wait", "fail", "die", "deaf", "hardened", "saves", "score")

TRAINING_YAML = """\
exp_dir: ${recipe_dir}/exp/tiny
"""

SYSTEM = """\
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from espnet3.systems.base.system import BaseSystem

STAGES = {stages}


class TinySystem(BaseSystem):
    def __init__(self, **kwargs):
        super().__init__(
            stage_log_mapping={{name: "training_config.exp_dir" for name in STAGES}}, **kwargs
        )

    def note(self, stage):
        rank = os.environ.get("NODE_RANK", "0")
        environ = dict(os.environ)
        token = hashlib.sha256(environ.pop("HF_TOKEN", "").encode()).hexdigest()
        told = {{"environ": environ, "argv": sys.argv, "pid": os.getpid(), "token_sha256": token}}
        told["uid"], told["cwd"] = os.getuid(), os.getcwd()
        told["mounts"] = Path("/proc/self/mountinfo").read_text()
        print("devices:", *sorted(os.listdir("/dev")), flush=True)
        folder = Path(self.exp_dir, "noted")
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{{stage}}.{{rank}}"
        partial.write_text(json.dumps(told))
        partial.rename(folder / f"{{stage}}.{{rank}}.json")
        return rank

    def report(self):
        self.note("report")
        self.sleep_until_gate()
        return {{"reported": 1}}

    def sleep_until_gate(self):
        gate = os.environ.get("TINY_GATE")
        deadline = time.monotonic() + 60
        while gate and not Path(gate).exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def train(self):
        rank = self.note("train")
        if os.environ.get("TINY_FAIL_RANK") == rank:
            sys.exit(3)
        if os.environ.get("TINY_FAIL_RANK"):
            time.sleep(120)
        return {{"steps": 3}}

    def score(self):
        self.note("score")
        return {{"test": {{"WER": 0.0}}}}

    def wait(self):
        self.sleep("wait")

    def sleep(self, stage):
        subprocess.Popen(["sleep", "333"], start_new_session=True)
        self.note(stage)
        time.sleep(float(os.environ.get("TINY_SLEEP_S", "120")))

    def fail(self):
        self.note("fail")
        print("the disk is on fire", flush=True)
        sys.exit(3)

    def die(self):
        self.note("die")
        os.kill(os.getpid(), signal.SIGKILL)

    def deaf(self):
        # As one of another framework: SIGUSR2 would kill it.
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        self.sleep("deaf")

    def hardened(self):
        for signum in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        self.sleep("hardened")

    def saves(self):
        # As a training that saves its work: it needs its image for some time more.
        def save(*_):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end = time.monotonic() + 3
            files = sorted(Path("/usr/bin").iterdir())
            while files and time.monotonic() < end:
                subprocess.run([sys.executable, "-c", "import json"], check=True)
                files.pop().read_bytes()
            Path(self.exp_dir, "noted", "saved").touch()
            os._exit(7)

        signal.signal(signal.SIGTERM, save)
        self.sleep("saves")
"""

RUN = """\
from egs3.TEMPLATE.asr.run import build_parser, main, parse_cli_and_stage_args
from src.tiny_system import STAGES, TinySystem

if __name__ == "__main__":
    parser = build_parser(stages=STAGES)
    args, stages_to_run = parse_cli_and_stage_args(parser, stages=STAGES)
    main(args=args, system_cls=TinySystem, stages=STAGES)
"""


def write_recipe(folder: Path, stages: Sequence[str] = STAGES) -> Path:
    """Write the recipe's files into ``folder``, and return it."""
    for name, content in {
        "run.py": RUN,
        "src/tiny_system.py": SYSTEM.format(stages=list(stages)),
        "conf/training.yaml": TRAINING_YAML,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def until(condition: Callable[[], object], timeout_s: float = 60, what: str = "it") -> None:
    """Wait for a condition to hold; fail when it does not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what} does not happen within {timeout_s:g} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class SlurmLaunch:
    """A launch of the recipe. ``said`` is what was printed at submission."""

    slurm: Slurm
    recipe: Path
    records: LaunchRecords
    said: str = ""

    @property
    def cluster(self) -> SlurmCluster:
        return SlurmCluster(Settings())

    @property
    def stages(self) -> list[str]:
        return [job["stage"] for job in self.records.read_launch()["jobs"]]

    @cached_property
    def ids(self) -> dict[str, str]:
        """The job ids, by stage."""
        submitted = (each for each in self.records.events(LAUNCH) if each["event"] == "submitted")
        return {event["stage"]: event["job_id"] for event in submitted}

    def status(self) -> dict[str, JobStatus]:
        """What ``launcher status`` tells: from the records, and by SLURM."""
        return {each.stage: each for each in chain_status(self.records, self.cluster)}

    def states(self) -> list[str]:
        return [status.state for status in self.status().values()]

    def wait(self, timeout_s: float = 60) -> dict[str, JobStatus]:
        """Wait until every stage has ended, and its job with it."""
        until(
            lambda: all(each.has_ended for each in self.status().values()),
            timeout_s,
            f"the end of {self.ids}",
        )
        until(lambda: not self.queued(), timeout_s, f"that {self.ids} leave the queue")
        return self.status()

    def queued(self) -> list[str]:
        """The jobs of this launch that wait, run, or are being ended."""
        shown = self.slurm.run("squeue", "--noheader", "--format=%i|%Z")
        folder = str(self.records.directory / "submitit")
        lines = [line.partition("|") for line in shown.splitlines()]
        return [job for job, _, where in lines if where == folder]

    def until_running(self, stage: str, timeout_s: float = 60) -> int:
        """Wait until a stage has begun its work; return its process id."""
        until(lambda: self.noted(stage), timeout_s, f"the start of {stage}")
        return int(self.noted(stage)["pid"])

    def noted(self, stage: str, rank: int = 0) -> dict[str, Any]:
        """What a stage noted of itself in this launch; empty when it did not."""
        path = self.recipe / "exp" / "tiny" / "noted" / f"{stage}.{rank}.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        is_ours = found["environ"].get("LAUNCHER_LAUNCH_ID") == self.records.directory.name
        return found if is_ours else {}

    def scontrol(self, stage: str) -> dict[str, str]:
        """What slurmctld knows of a stage's job."""
        shown = self.slurm.run("scontrol", "--oneliner", "show", "job", self.ids[stage])
        fields = re.findall(r"(\S+?)=(.*?)(?= [A-Z][\w/:.*]*=|\s*$)", shown)
        return {name: value.strip() for name, value in fields}

    def file(self, stage: str, suffix: str) -> Path:
        return self.recipe / "exp" / "tiny" / f"{stage}{suffix}"

    def metadata(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file(stage, ".metadata.json").read_text())
        return found

    def recorded(self, stage: str) -> JobStatus:
        """What the records alone tell."""
        return job_status(self.records, stage)

    def cancel(self) -> None:
        """End what is left of it."""
        for options in (["--signal=KILL", "--full"], []):
            if left := self.queued():
                command = ["scancel", *options, *left]  # some may have ended just now
                subprocess.run(command, env={**os.environ, **self.slurm.environment}, timeout=30)


@dataclass
class Site:
    """Where launches are made from: a SLURM and a recipe.

    Attributes:
        python: how the launcher is run.
        user: who runs it; None for the user of the tests.
    """

    slurm: Slurm
    recipe: Path
    python: str = sys.executable
    python_path: tuple[str, ...] = (str(REPOSITORY),)
    user: User | None = None
    launches: list[SlurmLaunch] = field(default_factory=list)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TINY_")}
        own = {"PYTHONPATH": os.pathsep.join(self.python_path), "LAUNCHER_CONFIG": os.devnull}
        return {**inherited, **self.slurm.environment, **own, **(more or {})}

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m launcher`` as a person would, in the recipe's folder."""
        command = [self.python, "-m", "launcher", *arguments]
        return subprocess.run(
            self.user.command(*command) if self.user else command,
            cwd=cwd or self.recipe,
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def launch(
        self, *arguments: str, environment: Mapping[str, str] | None = None, name: str = ""
    ) -> SlurmLaunch:
        """Launch stages of the recipe on this SLURM and on the nodes themselves."""
        named = [f"launch_name='{name}'"] if name else []
        options = ["--cluster", "slurm", "--container", "none", *arguments, *named]
        done = self.run(*options, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        where = self.recipe / done.stdout.splitlines()[0].removeprefix("launch ")
        launched = SlurmLaunch(self.slurm, self.recipe, LaunchRecords(where), done.stdout)
        self.launches.append(launched)
        return launched

    def queued(self) -> list[str]:
        """The jobs of any launch of this recipe's that are in the queue."""
        shown = self.slurm.run("squeue", "--noheader", "--format=%i|%Z")
        lines = [line.partition("|") for line in shown.splitlines()]
        return [job for job, _, where in lines if where.startswith(f"{self.recipe}/")]

    def close(self) -> None:
        for launched in self.launches:
            launched.cancel()


def step_daemons(slurm: Slurm, job_id: str, step: str = "") -> list[int]:
    """Return the slurmstepds of a job, or of one step of it (``batch``, ``0``)."""
    conf = os.fsencode(slurm.environment["SLURM_CONF"])
    title = f"slurmstepd: [{job_id}.{step}"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_it = (entry / "cmdline").read_bytes().startswith(title.encode())
            # Each of the two SLURMs has a job of this number.
            if is_it and conf in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wrap_commands(folder: Path, **before: str) -> Path:
    """Return a folder for PATH, in which commands of SLURM's do something else first.

    Args:
        folder: where it is made.
        before: by the name of the command, shell lines.
    """
    made = folder / "wrapped"
    made.mkdir(exist_ok=True)
    for name, lines in before.items():
        script = made / name
        found = shutil.which(name)
        script.write_text(f'#!/bin/sh\n{lines}\nexec {found} "$@"\n')
        script.chmod(0o755)
    return made
