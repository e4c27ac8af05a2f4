"""Resuming and running again: real chains on this machine, from a hostile path."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.records import LAUNCH, LaunchRecords
from launcher.status import chain_status
from tests.launcher.conftest import REPOSITORY, write_recipe
from tests.launcher.test_local import until

pytestmark = pytest.mark.slow

# Each stage says how often it ran, and leaves a file made of the one before it.
SYSTEM = """\
import os
from pathlib import Path

from espnet3.systems.base.system import BaseSystem


class TinySystem(BaseSystem):
    def __init__(self, labels_config=None, **kwargs):
        mapping = {"create_dataset": "data_dir", "train": "exp_dir", "pack": "exp_dir"}
        mapping = {name: f"training_config.{key}" for name, key in mapping.items()}
        for name in ("infer", "measure"):
            mapping[name] = "inference_config.inference_dir"
        super().__init__(stage_log_mapping=mapping, **kwargs)

    def leave(self, stage, folder, *made_of):
        with Path(os.environ["TINY_RAN"]).open("a") as file:
            file.write(f"{stage}\\n")
        if stage in os.environ.get("TINY_FAIL", "").split():
            raise RuntimeError("the disk is on fire")
        for file in made_of:
            Path(file).read_text()
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"{stage}.bin").write_text(f"made by {stage}")
        return {"files": 1}

    @property
    def data(self):
        return Path(self.training_config.data_dir)

    def create_dataset(self):
        return self.leave("create_dataset", self.data)

    def train(self):
        return self.leave("train", self.exp_dir, self.data / "create_dataset.bin")

    def infer(self):
        folder = self.inference_config.inference_dir
        return self.leave("infer", folder, self.exp_dir / "train.bin")

    def measure(self):
        folder = self.inference_config.inference_dir
        return self.leave("measure", folder, Path(folder, "infer.bin"))


for each in (TinySystem.create_dataset, TinySystem.train, TinySystem.infer, TinySystem.measure):
    each.__module__ = "espnet3.systems.tiny"  # what they read is as the framework's table has it
"""
STAGES = ["create_dataset", "train", "infer", "measure"]


class Chain:
    """The recipe, and the launches made of it."""

    def __init__(self, recipe: Path, ran: Path) -> None:
        self.recipe, self.ran_file = recipe, ran

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m launcher`` in the recipe's folder."""
        variables = {"PYTHONPATH": str(REPOSITORY), "TINY_RAN": str(self.ran_file), **variables}
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            cwd=self.recipe,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def follow(self, *arguments: str, status: int = 0, **variables: str) -> str:
        """Run a command that stays until every stage has ended; return what it printed."""
        done = self.run(*arguments, "--follow", **variables)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def explain(self, *arguments: str) -> dict[str, str]:
        """What ``resume --explain`` says of each stage, whose lines are joined by ``; ``."""
        done = self.run("resume", *arguments, "--explain")
        assert done.returncode == 0, done.stderr
        joined = re.sub(r"\n {12,}", "; ", done.stdout)
        return dict(re.findall(r"^  (\w+) +(.*)$", joined, re.MULTILINE))

    @property
    def ran(self) -> list[str]:
        """The stages that have run since this was last asked."""
        lines = self.ran_file.read_text().split() if self.ran_file.exists() else []
        self.ran_file.unlink(missing_ok=True)
        return lines

    @property
    def launches(self) -> list[LaunchRecords]:
        found = (self.recipe / ".launches").iterdir()
        made = {records: records.read_launch()["created"] for records in map(LaunchRecords, found)}
        return sorted(made, key=made.__getitem__)

    def states(self) -> dict[str, str]:
        """The states of the latest launch."""
        return {each.stage: each.state for each in chain_status(self.launches[-1])}

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.recipe / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def chain(hostile_path: Path) -> Chain:
    recipe = write_recipe(hostile_path / "tiny" / "asr")
    (recipe / "src" / "tiny_system.py").write_text(SYSTEM)
    run = recipe / "run.py"
    run.write_text(run.read_text().replace('["prepare", "fit", "score"]', json.dumps(STAGES)))
    for name, text in {
        "inference": "inference_dir: ${exp_dir}/inference\nbeam: 4\n",
        "metrics": "inference_dir: ${exp_dir}/inference\nmetrics: [wer]\n",
    }.items():
        (recipe / "conf" / f"{name}.yaml").write_text(text)
    return Chain(recipe, hostile_path / "ran")


def test_what_failed_and_never_ran_is_run_and_the_rest_is_kept(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="infer")
    assert chain.ran == STAGES[:3]
    told = chain.explain()
    assert told["create_dataset"] == told["train"] == "kept"
    assert told["infer"] == "runs  failed: exit status 1"
    assert told["measure"] == "runs  never ran: infer failed"
    assert chain.ran == []
    shown = chain.follow("resume")
    assert chain.ran == ["infer", "measure"]
    assert re.search(r"^train +kept +\d", shown, re.MULTILINE)
    earlier, later = chain.launches
    record = later.read_launch()
    assert record["resumes"] == str(earlier.directory)
    assert [job["after"] for job in record["jobs"][2:]] == [None, "infer"]
    (event,) = (each for each in earlier.events(LAUNCH) if each["event"] == "resumed_by")
    assert event["launch"] == str(later.directory)
    submitted = [each["stage"] for each in later.events(LAUNCH) if each["event"] == "submitted"]
    assert submitted == ["infer", "measure"]
    shown = chain.run("status").stdout
    assert re.search(r"^create_dataset +kept", shown, re.MULTILINE)
    assert re.search(r"^train +kept +[\d.]+ s  exp", shown, re.MULTILINE)  # and no time in a queue
    assert f"kept: create_dataset, train, run by launch {earlier.directory.name}\n" in shown
    assert re.search(r"^measure +done", shown, re.MULTILINE)
    assert re.search(r"^train +files 1$", shown, re.MULTILINE)


def test_nothing_to_do_is_said_and_submits_nothing(chain: Chain) -> None:
    chain.follow()
    done = chain.run("resume")
    assert done.returncode == 0
    assert "Nothing to do: every stage is done, and holds." in done.stdout
    assert len(chain.launches) == 1


def test_an_edited_config_redoes_the_stages_that_depend_on_it(chain: Chain) -> None:
    chain.follow()
    chain.edit("conf/inference.yaml", "beam: 4", "beam: 8")
    told = chain.explain()
    assert told["train"] == "kept"
    assert told["infer"] == "runs  config inference.beam: 4 → 8"
    assert told["measure"].endswith("upstream outputs: infer runs again")
    chain.edit("conf/inference.yaml", "beam: 8", "beam: 4")
    chain.edit("conf/metrics.yaml", "[wer]", "[wer, cer]")
    told = chain.explain()
    assert told["infer"] == "kept"
    assert told["measure"] == "runs  config metrics.metrics.1: – → cer"
    chain.edit("conf/training.yaml", "data_dir", "seed: 3\ndata_dir")
    assert chain.explain()["create_dataset"] == "runs  config training.seed: 0 → 3"


def test_an_output_that_is_gone_or_other_is_made_again_and_a_new_file_is_none(chain: Chain) -> None:
    chain.follow()
    exp = chain.recipe / "exp" / "tiny"
    (exp / "notes.txt").touch()
    assert set(chain.explain().values()) == {"kept"}
    (exp / "train.bin").unlink()
    assert chain.explain()["train"] == "runs  outputs: " + f"{exp}/train.bin (gone)"
    (exp / "train.bin").write_text("another")
    told = chain.explain()
    assert told["create_dataset"] == "kept"
    assert told["train"] == "runs  outputs: " + f"{exp}/train.bin (changed)"
    assert told["infer"] == "runs  upstream outputs: train runs again"
    assert chain.ran == STAGES
    chain.follow("resume")
    assert chain.ran == STAGES[1:]
    assert (exp / "train.bin").read_text() == "made by train"


def test_a_resumed_launch_is_resumed_and_speaks_for_the_whole_chain(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="train")
    chain.follow("resume", status=1, TINY_FAIL="infer")
    assert chain.ran == ["create_dataset", "train", "train", "infer"]
    first, second = chain.launches
    subprocess.run(["rm", "-r", str(first.directory)], check=True)
    chain.follow("resume")
    assert chain.ran == ["infer", "measure"]
    third = chain.launches[-1].read_launch()
    assert [job.get("carried_from") for job in third["jobs"]] == [
        *(str(first.directory), str(second.directory), None, None)
    ]
    assert set(chain.explain().values()) == {"kept"}
    chain.edit("src/tiny_system.py", "made by", "written by")
    assert chain.explain()["create_dataset"].startswith("runs  code: not the same")


def test_a_change_can_be_passed_over(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="infer")
    chain.edit("src/tiny_system.py", "made by", "written by")
    shown = chain.run("resume", "--explain").stdout
    assert "To keep what is done all the same: --keep create_dataset train" in shown
    assert chain.explain()["train"].startswith("runs  code: src/tiny_system.py")
    told = chain.explain("--keep", "create_dataset", "train")
    assert told["train"] == "kept  all the same: code: src/tiny_system.py"
    assert chain.ran == STAGES[:3]
    chain.follow("resume", "--keep", "create_dataset", "train")
    assert chain.ran == ["infer", "measure"]
    assert chain.explain()["train"] == "runs  code: src/tiny_system.py; upstream outputs: " + (
        "create_dataset runs again"
    )


def test_what_failed_names_what_has_changed_since(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="train")
    warning = "train ran with another config: what was saved then may be put aside"
    assert warning not in chain.run("resume", "--explain").stdout
    chain.edit("conf/training.yaml", "data_dir", "max_steps: 20\ndata_dir")
    chain.follow("resume", status=1, TINY_FAIL="train")
    chain.edit("conf/training.yaml", "max_steps: 20", "max_steps: 40")
    changed = "since then changed: config training.max_steps: 20 → 40"
    told = chain.explain()
    assert told["train"] == f"runs  failed: exit status 1; {changed}"
    assert told["infer"] == "runs  never ran: train failed"  # which has nothing to change from
    shown = chain.run("status", "--explain").stdout
    assert "\ntrain failed; since then changed: config training.max_steps: 20 → 40\n" in shown
    assert f"\n{warning}" in shown
    chain.edit("src/tiny_system.py", "made by", "written by")
    told = chain.explain()["train"]
    assert told.startswith("runs  failed: exit status 1; since then changed: code: src/tiny_system")
    shown = chain.run("rerun", "train", "--dry-run").stdout
    assert changed in shown
    assert f"\n{warning}" in shown
    shown = chain.follow("resume", "--keep", "create_dataset")
    assert shown.index(warning) < shown.index("\nlaunch ")  # before anything is submitted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep", "measure"], "--keep measure: it is skipped, and there is nothing to keep"),
        (["--keep", "trian"], "there is no stage 'trian' in launch"),
    ],
)
def test_what_cannot_be_kept(chain: Chain, arguments: list[str], said: str) -> None:
    chain.follow(status=1, TINY_FAIL="create_dataset")
    done = chain.run("resume", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(chain.launches) == 1


def test_a_cancelled_launch_is_resumed_once_it_has_ended(chain: Chain) -> None:
    chain.edit("src/tiny_system.py", "import os\n", "import os\nimport time\n")
    waits = 'if os.environ.get("TINY_WAIT"): time.sleep(60)\n        return self.leave("train"'
    chain.edit("src/tiny_system.py", 'return self.leave("train"', waits)
    assert chain.run(TINY_WAIT="yes").returncode == 0
    until(lambda: chain.states()["train"] == "running")
    done = chain.run("resume")
    assert done.returncode == 2
    assert "has not ended: train is running, infer is pending" in done.stderr
    assert f"end it: {sys.executable} -m launcher cancel .launches/" in done.stderr
    chain.run("cancel")
    assert chain.explain()["train"].startswith("runs  cancelled")
    chain.follow("resume")
    assert chain.ran == ["create_dataset", "train", "infer", "measure"]


def test_a_resumed_launch_is_queued_behind_another_that_writes_there(chain: Chain) -> None:
    chain.edit("src/tiny_system.py", "import os\n", "import os\nimport time\n")
    waits = 'if os.environ.get("TINY_WAIT"): time.sleep(60)\n        return self.leave("measure"'
    chain.edit("src/tiny_system.py", 'return self.leave("measure"', waits)
    chain.follow("launch_name=first", status=1, TINY_FAIL="infer")
    assert chain.run("--stages", "measure", "launch_name=other", TINY_WAIT="yes").returncode == 0
    until(lambda: chain.states()["measure"] == "running")
    for command in (["resume"], ["rerun", "infer"], ["reproduce"]):
        refused = chain.run(*command, "first")
        assert refused.returncode == 1
        assert "have this one wait for it with --queue" in refused.stderr
        assert chain.run(*command, "first", "--queue", "--dry-run").returncode == 0
    queued = chain.run("resume", "first", "--queue")
    assert queued.returncode == 0, queued.stderr
    assert "queued behind .launches/other" in queued.stdout
    assert chain.run("cancel", "other").returncode == 0
    assert chain.run("wait", chain.launches[-1].directory.name, "--quiet").returncode == 0
    assert chain.states()["measure"] == "done"


def test_a_launcher_that_is_killed_between_two_submissions(chain: Chain, tmp_path: Path) -> None:
    """What it had submitted ends by itself; then all of it is to be run."""
    killer = tmp_path / "killed" / "sitecustomize.py"
    killer.parent.mkdir()
    killer.write_text(
        "import os, signal\n"
        "from launcher.clusters.local import LocalCluster\n"
        "submit = LocalCluster.submit\n"
        "def once(self, job, *rest):\n"
        "    if job.stage == 'infer':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return submit(self, job, *rest)\n"
        "LocalCluster.submit = once\n"
    )
    done = chain.run(PYTHONPATH=os.pathsep.join([str(killer.parent), str(REPOSITORY)]))
    assert done.returncode == -signal.SIGKILL
    records = chain.launches[-1]
    until(lambda: all(each.has_ended for each in chain_status(records)))
    told = chain.explain()
    assert told["create_dataset"].startswith("runs  never ran: the launcher ended before")
    chain.follow("resume")
    assert chain.ran == STAGES


def test_a_launch_of_an_older_launcher_is_run_whole(chain: Chain) -> None:
    chain.follow()
    records = chain.launches[-1]
    record = records.read_launch()
    for job in record["jobs"]:
        del job["fingerprint"]
    del record["request"]
    records.write_launch(record)
    assert chain.explain()["create_dataset"] == "runs  its launch recorded no fingerprint"
    assert chain.ran == STAGES
    records.directory.joinpath("outputs", "train.json").write_text("{")
    assert chain.explain()["train"].startswith("runs  its launch recorded no fingerprint; outputs:")
    chain.follow("resume")
    assert chain.ran == STAGES


def test_a_command_line_is_resumed_with_its_words(chain: Chain) -> None:
    (chain.recipe / "conf" / "own labels.yaml").write_text("labels: 3\n")
    arguments = ["--stages", "train", "create_dataset", "--labels_config", "conf/own labels.yaml"]
    chain.follow(*arguments, "env.SEED=7", "launch_name=mine", status=1, TINY_FAIL="train")
    (job, _) = chain.launches[-1].read_launch()["jobs"]
    assert job["fingerprint"]["environment"] == {"SEED": "7"}
    chain.follow("resume", "mine", "resources.timeout_min=3", "env.MORE=yes")
    assert chain.ran == ["create_dataset", "train", "create_dataset", "train"]
    assert chain.launches[-1].read_launch()["jobs"][-1]["resources"]["timeout_min"] == 3
    job = chain.launches[-1].read_launch()["jobs"][-1]
    assert job["stage_command"][-2:] == ["--labels_config", "conf/own labels.yaml"]
    assert (job["environment"]["SEED"], job["environment"]["MORE"]) == ("7", "yes")
    (chain.recipe / "conf" / "own labels.yaml").write_text("labels: 4\n")
    assert chain.explain()["train"].startswith("runs  config labels: its content changed")


def test_dry_run_shows_what_would_be_submitted(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="infer")
    done = chain.run("resume", "--dry-run")
    assert "\ninfer\n" in done.stdout
    assert "\nmeasure, after infer\n" in done.stdout
    assert "\ntrain" not in done.stdout
    assert len(chain.launches) == 1


def test_one_stage_is_run_again_and_what_is_made_of_it_is_said_to_be_older(chain: Chain) -> None:
    chain.follow()
    assert chain.ran == STAGES
    shown = chain.follow("rerun", "train")
    assert re.search(r"^  train +runs  asked for$", shown, re.MULTILINE)
    assert re.search(
        r"^  infer +kept  all the same: made from what train left before$", shown, re.MULTILINE
    )
    assert chain.ran == ["train"]
    assert (chain.recipe / "exp" / "tiny" / "train1.log").is_file()
    assert chain.explain() == {
        "create_dataset": "kept",
        "train": "kept",
        "infer": "runs  upstream outputs: train has run again since",
        "measure": "runs  upstream outputs: infer runs again",
    }
    chain.follow("rerun", "infer", "--downstream")
    assert chain.ran == ["infer", "measure"]
    assert set(chain.explain().values()) == {"kept"}


def test_a_stage_after_one_that_is_not_done_is_not_run_again(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="train")
    done = chain.run("rerun", "infer")
    assert done.returncode == 2
    assert "infer comes after train, which is not done. To run what is left" in done.stderr
    done = chain.run("rerun")
    assert done.returncode == 2
    done = chain.run("rerun", "train", "infer")
    assert "name one stage of launch" in done.stderr
    chain.follow("rerun", "create_dataset")
    assert chain.ran == ["create_dataset", "train", "create_dataset"]
    done = chain.run("resume", str(chain.launches[0].directory), "--explain")
    assert f"  .launches/{chain.launches[1].directory.name} went on from it already" in done.stdout
    told = chain.explain()
    assert told["create_dataset"] == "kept"
    assert told["train"] == "runs  failed: exit status 1"
    assert told["measure"].startswith("runs  never ran: train failed")


def test_status_names_what_does_not_hold_any_more(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="measure")
    said = "what is done still holds: create_dataset, train, infer\n"
    assert chain.run("status", "--explain").stdout.endswith(said)
    chain.edit("conf/inference.yaml", "beam: 4", "beam: 8")
    shown = chain.run("status", "--explain").stdout
    change = "config inference.beam: 4 → 8"
    assert f"\ninfer does not hold any more: {change}\n" in shown
    assert f"\nmeasure failed; since then changed: {change}\n" in shown


def test_a_launch_on_the_host_is_reproduced_while_the_tree_is_the_same(chain: Chain) -> None:
    chain.follow("--stages", "create_dataset", "train", "env.SEED=7", "launch_name=first")
    exp, moved = chain.recipe / "exp" / "tiny", chain.recipe / "exp" / "moved"
    done = chain.run("reproduce", "first", "--dry-run")
    assert "\ntrain, after create_dataset\n" in done.stdout
    assert "mv exp/tiny exp/tiny.before; mv data data.before" in done.stderr
    assert len(chain.launches) == 1
    exp.rename(moved)
    chain.edit("conf/inference.yaml", "beam: 4", "beam: 4 ")
    done = chain.run("reproduce", "first")
    assert done.returncode == 1
    assert done.stderr == (
        "launcher: the launch would not be as it was:\n"
        "  code: stages run from the tree, which is another: conf/inference.yaml\n"
        "Mend that, or add --anyway.\n"
    )
    shown = chain.run("reproduce", "first", "--anyway", "--dry-run").stdout
    assert "  not as it was: code: stages run from the tree" in shown
    assert len(chain.launches) == 1
    chain.edit("conf/inference.yaml", "beam: 4 ", "beam: 4")
    (chain.recipe / "conf" / "launch.yaml").write_text("env: {SEED: '8'}\n")
    chain.follow("reproduce", "first")
    assert chain.ran == ["create_dataset", "train"] * 2
    first, second = (records.read_launch() for records in chain.launches)
    assert second["reproduces"] == str(chain.launches[0].directory)
    assert second["config"]["env"] == {"SEED": "7"}
    for key in ("fingerprint", "stage_command"):
        assert [job[key] for job in second["jobs"]] == [job[key] for job in first["jobs"]]
    assert (exp / "train.bin").is_file()


FROM_PYTHON = """\
from launcher import api
from launcher.errors import LauncherError, RecipeRefused, UsageError


def ended(launch):
    assert {stage.status.state for stage in api.wait(launch).stages} == {"done"}


assert [verdict.stage for verdict in api.explain() if verdict.runs] == ["measure"]
resumed = api.resume()
ended(resumed)
assert api.resume() is None
again = api.rerun("train", resumed, downstream=True, settings=["env.SEED=7"])
try:
    api.resume(again)
except UsageError as error:
    assert "has not ended" in str(error)
reproduced = api.reproduce(again, queue=True)
assert reproduced.read_launch()["queued_behind"] == [str(again.directory)]
ended(again)
ended(reproduced)
assert reproduced.read_launch()["config"]["env"] == {"SEED": "7"}
open("run.py", "w").write("raise SystemExit(3)")
try:
    api.reproduce(again)
except LauncherError as error:
    assert str(error).startswith("the launch would not be as it was:\\n  code: "), error
    assert "another: run.py" in str(error)
try:
    api.explain(again)
except RecipeRefused:
    print("as it should be")
"""


def test_the_same_from_python(chain: Chain) -> None:
    chain.follow(status=1, TINY_FAIL="measure")
    done = subprocess.run(
        [sys.executable, "-c", FROM_PYTHON],
        cwd=chain.recipe,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_RAN": str(chain.ran_file)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.endswith("as it should be\n"), done.stderr
    assert chain.ran == [*STAGES, "measure", *STAGES[1:], *STAGES]
