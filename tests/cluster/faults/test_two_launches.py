"""Two launches that write to one folder: one after the other, or the second not at all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.launches.claim_files import CLAIM
from launcher.status import chain_status, job_status
from tests.cluster.faults.conftest import LocalSite, ended
from tests.cluster.faults.table import TWO_LAUNCHES
from tests.cluster.slurm_launches import REPOSITORY, Site, until

pytestmark = [pytest.mark.cluster, pytest.mark.faults(TWO_LAUNCHES)]


def test_the_second_is_refused_with_the_first_ones_name(local_site: LocalSite) -> None:
    first = local_site.launch(TINY_SLEEP_S="60")
    local_site.until_running()
    name = first.directory.name
    for arguments in ([], ["--cluster", "debug"], ["--cluster", "debug", "--queue"]):
        refused = local_site.run("--container", "none", *arguments)
        assert refused.returncode == 1
        assert f".launches/{name} writes to {local_site.exp_dir}: prepare is" in refused.stderr
        assert f"cancel .launches/{name}" in refused.stderr
    shown = local_site.run("--container", "none", "--dry-run")
    assert shown.returncode == 0
    assert f"would be refused now: launch .launches/{name} writes to" in shown.stderr
    assert [each.directory for each in local_site.launches] == [first.directory]
    local_site.run("cancel", "--force")
    ended(first)
    assert ended(local_site.launch())["score"].state == "done"


def test_of_those_made_at_one_instant_one_runs_and_its_logs_are_its_own(
    local_site: LocalSite,
) -> None:
    command = [sys.executable, "-m", "launcher", "--container", "none"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_SLEEP_S": "60"}
    started = [
        subprocess.Popen(
            command,
            cwd=local_site.recipe,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1], said
    (launch,) = local_site.launches
    refusals = [each for each, process in zip(said, started, strict=True) if process.returncode]
    assert all(launch.directory.name in each or "made" in each for each in refusals), refusals
    local_site.until_running()
    assert len(list(local_site.exp_dir.glob("prepare*.out"))) == 1


def test_one_that_queues_begins_when_the_first_has_ended_however_it_did(
    local_site: LocalSite,
) -> None:
    first = local_site.launch(TINY_SLEEP_S="60")
    local_site.until_running()
    said = local_site.run("--container", "none", "--queue")
    assert f"queued behind .launches/{first.directory.name}" in said.stdout, said.stderr
    third = local_site.launch("--queue")
    _, second, _ = local_site.launches
    behind = [str(first.directory), str(second.directory)]
    assert third.read_launch()["queued_behind"] == behind
    waits = f"waits for launch {first.directory.name}"
    until(lambda: job_status(second, "prepare").reason == waits)
    until(lambda: job_status(third, "prepare").reason == waits)
    assert all(status.started is None for status in chain_status(second) + chain_status(third))
    for status in chain_status(first):  # its whole tree, so that nothing is left to record an end
        for process in (status.process, status.job_process):
            if process is not None:
                process.send(signal.SIGKILL)
    assert {each.state for each in ended(first).values()} <= {"failed", "skipped"}
    assert {each.state for each in ended(second).values()} == {"done"}
    assert {each.state for each in ended(third).values()} == {"done"}
    names = ("prepare1", "prepare2", "prepare")  # the latest has no number
    files = [local_site.exp_dir / f"{name}.metadata.json" for name in names]
    order = [json.loads(file.read_text())["job"]["LAUNCHER_LAUNCH_ID"] for file in files]
    assert order == [each.directory.name for each in (first, second, third)]


def test_on_slurm_one_is_refused_or_queued_behind_all_that_is_left(site: Site) -> None:
    gate = site.recipe / "gate"
    chain = ["--stages", "report", "train"]
    first = site.launch(*chain, environment={"TINY_GATE": str(gate)}, name="first")
    first.until_running("report")
    refused = site.run("--cluster", "slurm", "--container", "none", *chain)
    assert refused.returncode == 1
    assert ".launches/first writes to" in refused.stderr
    assert "report is running" in refused.stderr
    second = site.launch(*chain, "--queue", name="second")
    third = site.launch(*chain, "--queue", name="third")
    depends = second.scontrol("report")["Dependency"]
    asked = [f"afterany:{first.ids[stage]}" for stage in first.stages]
    assert re.findall(r"afterany:\d+", depends) == asked
    for queued, behind in ((second, "first"), (third, "first, second")):
        # SLURM says so once it has looked at the job.
        until(lambda: queued.status()["report"].reason == f"waits for launch {behind}", 30)  # noqa: B023
    assert third.scontrol("report")["JobState"] == "PENDING"
    claimed = json.loads((site.recipe / "exp" / "tiny" / CLAIM).read_text())
    assert [Path(each["launch"]).name for each in claimed["holders"]] == [
        "first",
        "second",
        "third",
    ]
    gate.touch()
    for launch in (first, second, third):
        assert {status.state for status in launch.wait().values()} == {"done"}
    begun = [launch.recorded("report").started for launch in (first, second, third)]
    done = [launch.recorded("train").ended for launch in (first, second, third)]
    assert done[0] <= begun[1]
    assert done[1] <= begun[2]


def test_a_slurm_that_does_not_answer_is_no_end_of_the_first(site: Site) -> None:
    first = site.launch("--stages", "wait", environment={"TINY_SLEEP_S": "60"}, name="first")
    first.until_running("wait")
    nowhere = site.recipe / "slurm.conf"
    nowhere.write_text("ClusterName=nowhere\nSlurmctldHost=localhost\nSlurmctldPort=1\n")
    shown = site.run(
        *("--container", "none", "--stages", "report", "--dry-run"),
        environment={"SLURM_CONF": str(nowhere)},
    )
    assert "cannot be told" in shown.stderr, shown.stderr
    assert "remove" in shown.stderr
