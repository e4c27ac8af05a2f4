"""A node is lost in the middle of a real training: it crashes, or lives on where SLURM sees it not.

Either way SLURM runs the training again elsewhere, under the same id. Nothing is told of the node
by hand: it is down when it has not answered for SlurmdTimeout, here twenty seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from launcher.processes.identity import ProcessId
from tests.cluster.faults.table import TRAINING_DISTURBED
from tests.cluster.faults.trainings import Training, Trainings, send, went_on
from tests.cluster.rehearsed import Slurm
from tests.cluster.slurm_launches import step_daemons, until, wrap_commands
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(TRAINING_DISTURBED)]


@dataclass(frozen=True)
class Nodes:
    """The nodes of a SLURM, to be lost."""

    slurm: Slurm

    def crash(self, node: str) -> None:
        """End a node with all that it runs, and nothing of it has the time to say so."""
        rehearse("lose_node.py", node)

    def cut_off(self, node: str, job_id: str) -> list[int]:
        """Cut a node off that lives on; return the sruns there, which are suspended.

        All nodes are one machine: srun would hear SLURM say that its node has failed.
        """
        os.kill(self._slurmd(node), signal.SIGKILL)
        processes = self._processes(node, job_id)
        sruns = [pid for pid in processes if name_of(pid) == "srun"]
        assert sruns
        send(signal.SIGSTOP, sruns)
        return sruns

    def until_down(self, node: str) -> None:
        until(lambda: "down" in self._state(node), 60, f"that {node} is down")

    def bring_back(self) -> None:
        rehearse("up.py")
        for node in self.slurm.nodes:
            until(partial(self._is_idle, node), 60, f"that {node} is idle")

    def left(self, node: str, job_id: str) -> list[str]:
        """Name the processes of a job that are left on a node."""
        return [name_of(pid) for pid in self._processes(node, job_id)]

    def _is_idle(self, node: str) -> bool:
        return self._state(node) == "idle"

    def _state(self, node: str) -> str:
        return self.slurm.run("sinfo", "--noheader", f"--nodes={node}", "--format=%T").split()[0]

    def _slurmd(self, node: str) -> int:
        folder = Path(self.slurm.environment["REHEARSAL_DIR"]) / "run"
        (record,) = folder.glob(f"*-slurmd-{node}.daemon.json")
        return int(json.loads(record.read_text())["pid"])

    def _processes(self, node: str, job_id: str) -> list[int]:
        names = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_JOB_ID={job_id}".encode()}
        found = step_daemons(self.slurm, job_id)
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if names <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def rehearse(script: str, *arguments: str) -> None:
    path = REPOSITORY / "tests" / "cluster" / "rehearsal" / script
    subprocess.run([sys.executable, str(path), *arguments], check=True, timeout=120)


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


@pytest.fixture
def nodes(slurm: Slurm) -> Iterator[Nodes]:
    """Return the nodes; each of them is up again, and idle, afterwards."""
    made = Nodes(slurm)
    yield made
    made.bring_back()


def launch(trainings: Trainings, name: str, *settings: str) -> Training:
    """Launch a training that two of the three nodes may run."""
    return trainings.launch(
        name, f"stages.train.sbatch.exclude={trainings.slurm.nodes[0]}", *settings
    )


def in_order(training: Training) -> list[tuple[str, int]]:
    """Return what is on record of the training, each event with the number of its run."""
    return [(each["event"], each["attempt"]) for each in training.records.events("train")]


def test_a_node_that_crashes(
    nodes: Nodes, trainings: Trainings, undisturbed: dict[str, Any]
) -> None:
    training = launch(trainings, "crashed")
    training.suspend()
    node = training.started()[0]["host"]
    nodes.crash(node)
    nodes.until_down(node)
    went_on(training, nodes.slurm, undisturbed)
    assert in_order(training) == [("started", 0), ("started", 1), ("ended", 1)]
    assert training.started()[1]["host"] != node


def test_a_node_that_lives_on(
    nodes: Nodes, trainings: Trainings, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """What it still runs gives way before the second run does anything, and is not told of."""
    cut_off = tmp_path / "cut-off"
    fails = f'[ "$RUNS_ON" = "$(cat {cut_off} 2>/dev/null)" ] && exit 1'
    commands = dict.fromkeys(("scontrol", "squeue", "scancel"), fails)
    path = f'PATH={wrap_commands(tmp_path, **commands)}:"$PATH"'
    setup = f"stages.train.setup=['export RUNS_ON=$SLURMD_NODENAME {path}']"
    training = launch(trainings, "lives-on", setup)
    suspended = training.suspend()
    node = training.started()[0]["host"]
    first = [ProcessId.of(pid) for pid in suspended]
    cut_off.write_text(node)
    sruns = nodes.cut_off(node, training.job_id())
    nodes.until_down(node)
    until(lambda: len(training.started()) == 2, 60, "the second run")
    send(signal.SIGCONT, suspended)
    until(lambda: not any(each.is_alive() for each in first), 10, "the end of the first run")
    send(signal.SIGKILL, sruns)  # each ends with what it had started
    went_on(training, nodes.slurm, undisturbed)
    assert in_order(training) == [("started", 0), ("started", 1), ("ended", 0), ("ended", 1)]
    last_word = training.records.events("train")[2]
    assert last_word["reason"].endswith("SLURM does not answer (killed by SIGKILL)")
    begun = datetime.fromisoformat(training.metadata()["job"]["start_time"]).timestamp()
    assert begun >= last_word["time"]
    assert training.metadata("train1")["state"] == "failed"
    assert not nodes.left(node, training.job_id())
