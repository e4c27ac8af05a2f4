"""A real training that SLURM stops in the middle, and that goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

import pytest

from tests.cluster.faults.table import TRAINING_DISTURBED
from tests.cluster.faults.trainings import Training, Trainings, environment_of, send, went_on
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(TRAINING_DISTURBED)]


def test_preempted_by_another_job(
    trainings: Trainings, slurm: Slurm, undisturbed: dict[str, Any]
) -> None:
    node = slurm.nodes[2]
    where = ["stages.train.partition=low", f"stages.train.sbatch.nodelist={node}"]
    training = trainings.launch("preempted", *where)
    suspended = training.suspend()
    competing = ["srun", "--partition=main", f"--nodelist={node}", "--exclusive", "true"]
    with subprocess.Popen(competing, env=environment_of(slurm), stderr=subprocess.PIPE) as srun:
        until(lambda: training.status()["train"].state == "pending", 30, "the preemption")
        send(signal.SIGCONT, suspended)  # it may as well save its work
        assert (srun.wait(60), training.started()[1:]) == (0, [])
    went_on(training, slurm, undisturbed)
    reason = training.metadata("train1")["job"]["reason"]
    assert reason.startswith("put back into the queue by SLURM"), reason


def test_out_of_time(trainings: Trainings, slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    limits = ["stages.train.timeout_min=1", "cluster.signal_delay_s=14"]
    training = trainings.launch("out-of-time", *limits)
    suspended = training.suspend()
    # SLURM sends its warning up to a minute early, and SIGCONT before it. The stage is told 14 s
    # before the end of its minute, and hears of it when it wakes.
    while slurm_seconds_left(slurm, training) > 12:
        send(signal.SIGSTOP, suspended)
        time.sleep(0.05)
    send(signal.SIGCONT, suspended)
    went_on(training, slurm, undisturbed)
    events = [e for e in training.records.events("train") if e["event"] == "requeued"]
    assert [e.get("cause") for e in events] == ["time_limit"]
    assert "for run 2 of at most 4: checkpoint after step" in events[0]["reason"]


def slurm_seconds_left(slurm: Slurm, training: Training) -> int:
    told = slurm.run("squeue", "--noheader", f"--jobs={training.job_id()}", "--format=%L").strip()
    minutes, _, seconds = told.rpartition(":")
    return int(minutes or 0) * 60 + int(seconds)
