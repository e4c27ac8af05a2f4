"""Resuming and reproducing against the real parts: SLURM's dependencies, images, snapshots."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.images.lock import LockEntry, read_lock, update_lock
from launcher.records import LAUNCH, LaunchRecords
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.rehearsed import Rehearsal, Slurm
from tests.cluster.slurm_launches import Site, SlurmLaunch, wrap_commands, write_recipe
from tests.cluster.test_container_launches import Launches, in_git, setting
from tests.conftest import HOSTILE_NAME

pytestmark = pytest.mark.cluster
STAGES = ("report", "train", "fail", "score")
# The third stage fails as long as this file is there.
FAILS = """\
        self.note("fail")
        if Path(self.exp_dir, "broken").exists():
            sys.exit(3)
"""


def write_chain(folder: Path) -> Path:
    """Write the recipe, its third stage failing until it is mended without touching the code."""
    recipe = write_recipe(folder, STAGES)
    system = recipe / "src" / "tiny_system.py"
    text = system.read_text()
    before = '        self.note("fail")\n        print("the disk is on fire", flush=True)\n'
    assert before in text
    system.write_text(text.replace(before + "        sys.exit(3)\n", FAILS))
    broken = recipe / "exp" / "tiny" / "broken"
    broken.parent.mkdir(parents=True)
    broken.touch()
    return recipe


@pytest.fixture
def site(tmp_path: Path, slurm: Slurm) -> Iterator[Site]:
    site = Site(slurm, write_chain(tmp_path / HOSTILE_NAME))
    yield site
    site.close()


@pytest.fixture
def launches(tmp_path: Path, rehearsal: Rehearsal, cpu_image: CpuImage) -> Iterator[Launches]:
    """The same recipe in a git work tree, and what a launch of it in a container needs."""
    recipe = in_git(write_chain(tmp_path / HOSTILE_NAME))
    repository = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, **rehearsal.environment, "PYTHONPATH": repository}
    made = Launches(recipe, environment, cpu_image.lock_file, cpu_image.cache_dir)
    yield made
    made.close()


def latest(launches: Launches) -> LaunchRecords:
    found = (launches.recipe / ".launches").iterdir()
    made = {records: records.read_launch()["created"] for records in map(LaunchRecords, found)}
    records = max(made, key=made.__getitem__)
    launches.made.append(records)
    return records


def reproduce(launches: Launches, records: LaunchRecords) -> subprocess.CompletedProcess[str]:
    """Reproduce a launch: nothing but its record says what it is."""
    return subprocess.run(
        [sys.executable, "-m", "launcher", "reproduce", str(records.directory)],
        cwd=launches.recipe,
        env=launches.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def submitted(records: LaunchRecords) -> list[str]:
    return [each["stage"] for each in records.events(LAUNCH) if each["event"] == "submitted"]


def test_a_chain_whose_middle_stage_failed_goes_on_without_dependencies_on_what_is_done(
    site: Site,
) -> None:
    first = site.launch("--stages", *STAGES)
    states = {stage: each.state for stage, each in first.wait().items()}
    assert states == {"report": "done", "train": "done", "fail": "failed", "score": "skipped"}
    (site.recipe / "exp" / "tiny" / "broken").unlink()
    done = site.run("resume", str(first.records.directory))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  train +kept$", done.stdout, re.MULTILINE)
    where = re.search("^launch (.*)$", done.stdout, re.MULTILINE)[1]
    second = SlurmLaunch(site.slurm, site.recipe, LaunchRecords(site.recipe / where), done.stdout)
    site.launches.append(second)
    assert second.scontrol("fail")["Dependency"] == "(null)"
    assert f"afterok:{second.ids['fail']}" in second.scontrol("score")["Dependency"] or (
        second.status()["score"].state in ("running", "done")
    )
    assert {stage: each.state for stage, each in second.wait().items()} == dict.fromkeys(
        STAGES, "done"
    )
    assert list(second.ids) == ["fail", "score"]
    assert second.metadata("fail")["job"]["dependency"] is None
    assert second.metadata("score")["job"]["dependency"] == f"afterok:{second.ids['fail']}"
    shown = site.run("status", str(second.records.directory)).stdout
    assert re.search(r"^report +kept", shown, re.MULTILINE)
    assert re.search(r"^score +done", shown, re.MULTILINE)


def test_what_waits_in_the_queue_is_not_resumed(site: Site) -> None:
    launched = site.launch("--stages", "report", "train", environment={"TINY_GATE": "/nowhere"})
    done = site.run("resume", str(launched.records.directory))
    assert done.returncode == 2
    assert re.search("has not ended: report is (pending|running), train is pending", done.stderr)
    assert site.run("cancel", str(launched.records.directory)).returncode == 0
    shown = site.run("resume", str(launched.records.directory), "--explain").stdout
    assert re.search(r"^  report +runs  (cancelled|never ran)", shown, re.MULTILINE)
    assert re.search(r"^  train +runs  never ran", shown, re.MULTILINE)


def test_a_chain_that_was_submitted_in_part_is_cancelled_and_then_resumed(
    site: Site, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    third = f"echo x >> {count}; [ $(grep -c x {count}) -lt 4 ] || kill -KILL $PPID"
    path = {"PATH": f"{wrap_commands(tmp_path, sbatch=third)}:{os.environ['PATH']}"}
    options = ["--cluster", "slurm", "--container", "none", "launch_name=killed"]
    done = site.run(*options, "--stages", "report", "train", "score", environment=path)
    assert done.returncode == -signal.SIGKILL
    done = site.run("resume", "killed")
    assert done.returncode == 2
    assert "has not ended: report is pending" in done.stderr
    assert site.run("cancel", "killed").returncode == 0
    done = site.run("resume", "killed")
    assert done.returncode == 0, done.stderr
    where = re.search("^launch (.*)$", done.stdout, re.MULTILINE)[1]
    resumed = SlurmLaunch(site.slurm, site.recipe, LaunchRecords(site.recipe / where), done.stdout)
    site.launches.append(resumed)
    states = {stage: status.state for stage, status in resumed.wait().items()}
    assert states == dict.fromkeys(("report", "train", "score"), "done")


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_chain_in_containers_is_resumed_and_another_image_is_named(
    launches: Launches, slurm: Slurm, cluster: str
) -> None:
    records = launches.launch("--cluster", cluster, "--container", "docker", "--stages", *STAGES)
    states = [status.state for status in launches.wait(records).values()]
    assert states == ["done", "done", "failed", "skipped"]
    (launches.recipe / "exp" / "tiny" / "broken").unlink()
    done = launches.run("resume")
    assert done.returncode == 0, done.stderr
    second = latest(launches)
    assert set(launches.wait(second)) == set(STAGES)
    assert {status.state for status in launches.wait(second).values()} == {"done"}
    assert submitted(second) == ["fail", "score"]
    assert launches.metadata("score")["job"]["runtime"] == "docker"
    # The lock file of the fixture belongs to all tests: another is named from here on.
    entry = read_lock(launches.lock_file)["cpu"]
    other = launches.recipe.parent / "other.lock.yaml"
    update_lock(other, "cpu", LockEntry(image_id="sha256:" + "1" * 64, inputs=entry.inputs))
    launches.lock_file = other
    done = launches.run("resume", "--explain")
    asked = entry.digest or entry.image_id
    assert f"report  runs  image: {asked} → sha256:{'1' * 64}" in done.stdout, done.stderr


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_launch_is_reproduced_with_its_own_code_image_and_config(
    launches: Launches, slurm: Slurm, cluster: str
) -> None:
    (launches.recipe / "exp" / "tiny" / "broken").unlink()
    records = launches.launch(
        *("--cluster", cluster, "--container", "docker", "--stages", "report", "fail", "score"),
        *("launch_name=first", "env.GREETING=hello"),
    )
    assert {status.state for status in launches.wait(records).values()} == {"done"}
    first = records.read_launch()
    source = launches.recipe / "src" / "tiny_system.py"
    source.write_text("raise RuntimeError('edited')\n")
    (launches.recipe / "run.py").unlink()
    (launches.recipe / "conf" / "training.yaml").write_text("exp_dir: /nowhere\n")
    (launches.recipe / "conf" / "launch.yaml").write_text("env: {GREETING: bye}\n")
    done = reproduce(launches, records)
    assert done.returncode == 0, done.stderr
    assert "not as it was" not in done.stdout
    second = latest(launches)
    assert second.directory != records.directory
    states = {stage: status.state for stage, status in launches.wait(second).items()}
    assert states == dict.fromkeys(("report", "fail", "score"), "done"), launches.file(
        "report", ".out"
    ).read_text()
    noted = launches.noted("report")["environ"]
    assert noted["GREETING"] == "hello"
    assert noted["LAUNCHER_LAUNCH_ID"] == second.directory.name
    record = second.read_launch()
    assert record["reproduces"] == str(records.directory)
    assert launches.metadata("score")["job"]["cluster"] == cluster
    assert record["snapshot"]["digest"] == first["snapshot"]["digest"]
    assert record["git"] == first["git"]
    for key in ("image", "fingerprint"):
        assert [job[key] for job in record["jobs"]] == [job[key] for job in first["jobs"]]
    assert not launches.containers()


def test_a_snapshot_that_is_altered_or_gone_is_said_so_before_anything_is_submitted(
    launches: Launches,
) -> None:
    records = launches.launch("--container", "docker", "--stages", "report", "launch_name=first")
    launches.wait(records)
    (stored,) = records.directory.glob("snapshot/0/**/tiny_system.py")
    text = stored.read_text()
    stored.write_text(text + "# altered\n")
    done = reproduce(launches, records)
    assert done.returncode == 1
    assert re.search(
        r"snapshot is not what was recorded: .*tiny_system\.py \(altered\)", done.stderr
    )
    stored.unlink()
    done = reproduce(launches, records)
    assert re.search(r"tiny_system\.py \(gone\)", done.stderr)
    (records.directory / "snapshot").rename(records.directory / "aside")
    done = reproduce(launches, records)
    assert "snapshot is gone" in done.stderr
    assert len(list((launches.recipe / ".launches").iterdir())) == 1


def test_an_image_that_is_not_to_be_had_and_data_that_is_gone(
    launches: Launches, tmp_path: Path
) -> None:
    data = tmp_path / "corpus"
    data.mkdir()
    records = launches.launch(
        *("--container", "docker", "--stages", "report", setting("env.DATA", data)),
        "launch_name=first",
    )
    launches.wait(records)
    data.rmdir()
    done = reproduce(launches, records)
    assert done.returncode == 1
    assert f"cannot be reproduced: {data} is gone, which it had" in done.stderr
    data.mkdir()
    record = records.read_launch()
    missing = "sha256:" + "2" * 64
    record["jobs"][0]["image"].update(repository=None, digest=None, image_id=missing)
    (records.directory / "launch.json").write_text(json.dumps(record))
    done = reproduce(launches, records)
    assert done.returncode == 1
    assert missing in done.stderr
    assert len(list((launches.recipe / ".launches").iterdir())) == 1
