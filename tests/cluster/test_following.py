"""The commands that look at a launch from another process, on a real SLURM of either kind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import Site, until

pytestmark = pytest.mark.cluster
both_slurms = pytest.mark.parametrize("slurm", ["plain", "accounting"], indirect=True)


@both_slurms
def test_a_chain_as_status_list_and_wait_tell_it(site: Site, slurm: Slurm) -> None:
    launch = site.launch("--stages", "train", "fail", "score", "resources.cpus_per_task=2")
    waited = site.run("wait", "--timeout-min", "0.9")
    assert waited.returncode == 1, waited.stdout + waited.stderr
    assert re.search("^fail +failed", waited.stdout, re.MULTILINE)
    told = json.loads(site.run("status", "--json").stdout)
    assert (told["cluster"], told["state"], told["has_ended"]) == ("slurm", "failed", True)
    stages = {each["stage"]: each for each in told["stages"]}
    states = {name: each["state"] for name, each in stages.items()}
    assert states == {"train": "done", "fail": "failed", "score": "skipped"}
    assert {name: each["job_id"] for name, each in stages.items()} == launch.ids
    assert stages["train"]["resources_asked"]["cpus_per_task"] == 2
    assert stages["train"]["node"]
    assert stages["train"]["queue_s"] >= 0
    assert stages["train"]["run_s"] > 0
    assert stages["fail"]["exit_code"] == 3
    assert stages["fail"]["failure_lines"][-1] == "sys.exit(3) called in the stage"
    assert Path(stages["fail"]["output"]) == launch.file("fail", ".out")
    assert stages["score"]["log"] is None
    assert "failed: fail (stage 2 of 3)" in site.run("list").stdout
    assert "the disk is on fire" in site.run("logs").stdout  # of the stage that failed


@both_slurms
def test_the_output_of_a_stage_that_is_put_back_is_followed_into_its_next_run(
    site: Site, slurm: Slurm
) -> None:
    gate = site.recipe / "gate"
    launch = site.launch("--stages", "report", environment={"TINY_GATE": str(gate)})
    first = launch.until_running("report")
    following = subprocess.Popen(
        [sys.executable, "-m", "launcher", "logs", "report", "-f"],
        cwd=site.recipe,
        env=site.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # communicate() would not know of what readline() has read ahead
    )
    try:
        assert following.stdout is not None
        begun = following.stdout.readline()  # it is at the first run
        slurm.run("scontrol", "requeue", launch.ids["report"])
        until(lambda: launch.noted("report")["pid"] != first, what="its second run")
        gate.touch()
        launch.wait()
        rest, notes = following.communicate(timeout=60)
    finally:
        following.kill()
        following.wait()
    assert following.returncode == 0, notes
    assert b"report is done" in notes
    runs = [launch.file(name, ".out").read_bytes() for name in ("report1", "report")]
    assert begun + rest == b"".join(runs)


@both_slurms
def test_cancelling_a_stage_leaves_what_runs_before_it(site: Site, slurm: Slurm) -> None:
    gate = site.recipe / "gate"
    environment = {"TINY_GATE": str(gate)}
    launch = site.launch("--stages", "report", "train", "score", environment=environment)
    launch.until_running("report")
    done = site.run("cancel", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert launch.states() == ["running", "cancelled", "cancelled"]
    until(lambda: launch.queued() == [launch.ids["report"]], what="that the others leave")
    gate.touch()
    assert launch.wait()["report"].state == "done"
    assert site.run("wait", "--quiet").returncode == 1


def test_waiting_for_a_chain_that_is_done(site: Site) -> None:
    site.launch("--stages", "train", "score")
    waited = site.run("wait", "--quiet", "--timeout-min", "0.9")
    assert (waited.returncode, waited.stdout) == (0, ""), waited.stderr
