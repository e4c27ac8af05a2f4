"""What the job of a stage records of it in its launch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.job.outcome import Outcome
from launcher.job.stage_outputs import list_outputs, write_outputs
from launcher.records import LaunchRecords
from launcher.results import read_metadata
from launcher.status import PENDING

if TYPE_CHECKING:
    from launcher.clusters.base import Allocation
    from launcher.launch import Job


def record_start(
    records: LaunchRecords, stage: str, allocation: Allocation, *, output_inode: int
) -> None:
    """Record that a stage begins in this process, where, and which raw output is its own."""
    records.append(
        stage,
        "started",
        host=allocation.node,
        pid=os.getpid(),
        output_inode=output_inode,
        attempt=allocation.restart_count,
    )


def record_end(
    records: LaunchRecords,
    stage: str,
    outcome: Outcome,
    attempt: int = 0,
    used: Mapping[str, Any] | None = None,
) -> None:
    """Record how a stage ended, or that it is to run again."""
    told = {"reason": outcome.reason, "attempt": attempt, "used": used or None}
    if outcome.state == PENDING:
        return records.append(stage, "requeued", cause=outcome.cause, **told)
    records.append(stage, "ended", state=outcome.state, exit_code=outcome.exit_code, **told)


def record_outputs(records: LaunchRecords, job: Job, opened: os.stat_result) -> None:
    """Record what a stage has written; of one that kept what was there, all that is.

    Args:
        records: of the launch.
        job: of the stage.
        opened: its raw output, as it was when the stage began.
    """
    folder = job.output.parent
    stages = records.read_launch()["plan"]["stages"]
    others = {Path(stage["log_dir"]) for stage in stages} - {folder}
    recorded = read_metadata(job.output.with_suffix(".metadata.json"), output_inode=opened.st_ino)
    keeps = recorded.get("kept") is True and not (folder / "run.py").exists()
    since_ns = 0 if keeps else opened.st_ctime_ns
    write_outputs(records, job.stage, list_outputs(folder, others, since_ns=since_ns))
