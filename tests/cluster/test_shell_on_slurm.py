"""A shell in a stage on a real SLURM: in its running job, and in an allocation of its own."""

from __future__ import annotations

import json

import pytest

from tests.cluster.slurm_launches import Site, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
TELL = "import json, os; print(json.dumps(dict(os.environ)))"


def told(site: Site, stage: str) -> dict[str, str]:
    done = site.run("shell", stage, "--", site.python, "-c", TELL)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_shell_is_in_the_stages_own_job_while_that_runs(site: Site) -> None:
    gate = site.recipe / "gate"
    launch = site.launch(
        *("--stages", "report", "score", "stages.report.gpus_per_node=2", "env.COLOUR=green"),
        environment={"TINY_GATE": str(gate)},
    )
    launch.until_running("report")
    of_stage, of_shell = launch.noted("report")["environ"], told(site, "report")
    names = ("SLURM_JOB_ID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "COLOUR")
    assert [of_shell.get(name) for name in names] == [of_stage[name] for name in names]
    before = launch.records.events("report")
    assert site.run("shell", "report", "--", "false").returncode == 1
    assert launch.records.events("report") == before
    gate.touch()
    assert {each.state for each in launch.wait().values()} == {"done"}

    later = told(site, "report")
    assert later["SLURM_JOB_ID"] not in launch.ids.values()
    assert (len(later["CUDA_VISIBLE_DEVICES"].split(",")), later["COLOUR"]) == (2, "green")
    until(lambda: not site.queued(), 30, "that nothing is left in the queue")
