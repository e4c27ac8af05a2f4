"""A launch as it is shown: what is told of it, and how much is read for that."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from launcher.clusters.base import JobState
from launcher.display.status_table import status_table
from launcher.records import LAUNCH, LaunchRecords
from launcher.view import LaunchView

CHAIN = ("prepare", "fit", "score")


class Scheduler:
    """Answers for jobs that are elsewhere, and counts how often it was asked."""

    def __init__(self, **states: str) -> None:
        self.told, self.num_asked = states, 0

    def states(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        self.num_asked += 1
        return {job_id: JobState(self.told.get(job_id, "pending")) for job_id in job_ids}


def make_launch(folder: Path, stages: Sequence[str] = CHAIN) -> LaunchRecords:
    """Return the records of a launch on a cluster elsewhere, its stages jobs 1, 2, …."""
    records = LaunchRecords.create(folder / "launches" / "one")
    jobs = [
        {
            "stage": stage,
            "after": stages[number - 1] if number else None,
            "resources": {"nodes": 1, "cpus_per_task": 2, "mem_gb": None, "gpus_per_node": 0},
            **{
                name: str(folder / f"{stage}.{suffix}")
                for name, suffix in (
                    ("output", "out"),
                    ("log", "log"),
                    ("metadata", "metadata.json"),
                )
            },
        }
        for number, stage in enumerate(stages)
    ]
    config = {"cluster": {"name": "slurm"}, "container": {"name": "none"}}
    plan = {"exp_dir": str(folder / "exp" / "tiny")}
    records.write_launch({"jobs": jobs, "config": config, "plan": plan, "created": time.time()})
    for number, stage in enumerate(stages, 1):
        records.append(LAUNCH, "submitted", stage=stage, job_id=str(number), process=None)
    records.append(LAUNCH, "released")
    return records


@pytest.fixture
def records(hostile_path: Path) -> LaunchRecords:
    return make_launch(hostile_path)


def end(records: LaunchRecords, stage: str, state: str, exit_code: int | None = 0) -> None:
    records.append(stage, "ended", state=state, reason="", exit_code=exit_code)


def test_what_is_told_of_a_stage(records: LaunchRecords) -> None:
    records.append("prepare", "started", host="n7", attempt=0)
    records.append("prepare", "requeued", reason="preempted", attempt=0)
    records.append("prepare", "started", host="n8", attempt=1)
    end(records, "prepare", "failed", 137)
    told = LaunchView.of(records).to_record()
    prepare, fit, _ = told["stages"]
    assert (prepare["node"], prepare["attempt"], prepare["signal"]) == ("n8", 1, "SIGKILL")
    assert prepare["resources_asked"] == {"nodes": 1, "cpus_per_task": 2, "gpus_per_node": 0}
    assert prepare["queue_s"] >= 0
    assert prepare["run_s"] >= 0
    assert (fit["state"], fit["queue_s"], fit["log"]) == ("skipped", None, None)
    assert (told["experiment"], told["cluster"], told["has_ended"]) == ("tiny", "slurm", True)
    assert json.loads(json.dumps(told)) == told


def test_what_is_said_of_a_stage_stands_in_its_column(records: LaunchRecords) -> None:
    records.append("prepare", "started", host="n7", attempt=0)
    end(records, "prepare", "failed", 1)
    head, *rows = status_table(LaunchView.of(records), width=1000).plain.splitlines()
    begin = head.index("log")
    assert rows[0][begin:].endswith("prepare.out")
    assert [row[begin:] for row in rows[1:]] == ["prepare failed", "prepare failed"]
    assert not any(row[begin - 1].strip() for row in rows)
    assert not any(row.endswith(" ") for row in (head, *rows))
    narrow = status_table(LaunchView.of(records), width=40).plain.splitlines()
    assert narrow[2].strip().endswith("prepare.out")
    assert [narrow[4], narrow[6]] == ["    2 CPUs  prepare failed"] * 2


@pytest.mark.parametrize(
    ("ends", "state", "in_words"),
    [
        ({}, "pending", "pending prepare, 1 of 3"),
        ({"prepare": "done"}, "pending", "pending fit, 2 of 3"),
        ({"prepare": "done", "fit": "failed"}, "failed", "failed: fit (stage 2 of 3)"),
        ({"prepare": "cancelled"}, "cancelled", "cancelled: prepare (stage 1 of 3)"),
        (dict.fromkeys(CHAIN, "done"), "done", "done"),
    ],
)
def test_the_state_of_the_whole(
    records: LaunchRecords, ends: dict[str, str], state: str, in_words: str
) -> None:
    for stage, how in ends.items():
        records.append(stage, "started", host="n1")
        end(records, stage, how)
    view = LaunchView.of(records)
    assert (view.state, view.in_words) == (state, in_words)


def test_a_scheduler_is_asked_once_for_all_stages(hostile_path: Path) -> None:
    records = make_launch(hostile_path, [f"stage{number}" for number in range(1000)])
    scheduler = Scheduler(**{"1": "running"})
    view = LaunchView.of(records, scheduler)
    assert scheduler.num_asked == 1
    assert view.in_words == "running stage0, 1 of 1000"


def test_a_journal_is_read_again_only_when_it_has_changed(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    monkeypatch.setattr(
        "launcher.records._parse", lambda line: parsed.append(line) or json.loads(line)
    )
    for _ in range(3):
        LaunchView.of(records)
    assert len(parsed) == len(set(parsed)) == 4
    end(records, "prepare", "done")
    assert LaunchView.of(records).stages[0].status.state == "done"


def test_damage_is_told_and_the_rest_is_shown(records: LaunchRecords) -> None:
    with (records.directory / "events" / "prepare.jsonl").open("ab") as file:
        file.write(b'\x00\xff\n{"time": 1\n')
    end(records, "prepare", "done")
    view = LaunchView.of(records)
    assert view.damaged == ["events/prepare.jsonl has 2 lines that are damaged and passed over"]
    assert view.stages[0].status.state == "done"
