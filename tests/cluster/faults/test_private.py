"""A launch directory that others could look into or write to, and a pickle that is another."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from tests.cluster.faults.conftest import LocalSite, ended
from tests.cluster.faults.table import OTHERS
from tests.cluster.rehearsed import User
from tests.cluster.slurm_launches import Site
from tests.cluster.test_slurm_faults import ended as ended_on_slurm

pytestmark = [pytest.mark.faults(OTHERS), pytest.mark.slow]


class Trap:
    """Whoever loads it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def pickle_of(records: LaunchRecords, stage: str) -> Path:
    job_id = records.submissions()[stage]["job_id"]
    return records.directory / "submitit" / f"{job_id}_submitted.pkl"


def test_a_pickle_that_was_replaced_is_not_loaded(local_site: LocalSite, tmp_path: Path) -> None:
    # The jobs after the first start seconds later, on this machine.
    records = local_site.launch(TINY_SLEEP_S="1")
    path = pickle_of(records, "score")
    path.write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    told = ended(records)
    if told["score"].state == "done":  # it had been loaded before
        pytest.fail("the job was quicker than the test")
    assert told["score"].state == "failed"
    assert "is not what was written at submission" in told["score"].reason
    assert not (tmp_path / "trace").exists()


@pytest.mark.cluster
def test_on_slurm_too(site: Site, tmp_path: Path, non_root_user: User) -> None:
    gate = site.recipe / "gate"
    launch = site.launch(
        "--stages", "report", "train", "score", environment={"TINY_GATE": str(gate)}
    )
    launch.until_running("report")
    path = pickle_of(launch.records, "train")
    path.write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    os.chown(path, non_root_user.uid, non_root_user.gid)
    gate.touch()
    told = ended_on_slurm(launch)
    assert told["train"][0] == "failed"
    assert f"belongs to {non_root_user.name}" in told["train"][1]
    assert told["score"] == ("skipped", "train failed")
    assert not (tmp_path / "trace").exists()


@pytest.mark.cluster
def test_a_directory_that_others_may_write_to_is_not_acted_on(site: Site) -> None:
    gate = site.recipe / "gate"
    launch = site.launch("--stages", "report", "score", environment={"TINY_GATE": str(gate)})
    launch.until_running("report")
    launch.records.directory.chmod(0o777)
    done = site.run("cancel")
    assert done.returncode == 1
    assert "others may write to" in done.stderr
    assert "chmod go-w" in done.stderr
    gate.touch()
    told = ended_on_slurm(launch)
    assert told["report"] == ("done", "")
    assert told["score"][0] == "failed"
    assert "others may write to" in told["score"][1]
    launch.records.directory.chmod(0o700)
