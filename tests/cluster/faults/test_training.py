"""A real training that SLURM stops in the middle, and that goes on."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.cluster.faults.table import TRAINING_DISTURBED
from tests.cluster.faults.trainings import Training, Trainings, send, went_on
from tests.cluster.rehearsed import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(TRAINING_DISTURBED)]


def test_preempted(trainings: Trainings, slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    node = slurm.nodes[2]
    where = ["stages.train.partition=low", f"stages.train.sbatch.nodelist={node}"]
    training = trainings.launch("preempted", *where)
    suspended = training.suspend()
    slurm.run("scontrol", "requeue", training.job_id())
    send(signal.SIGCONT, suspended)
    went_on(training, slurm, undisturbed)


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
