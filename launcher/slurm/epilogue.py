"""The last line of a job's script, where its job process failed, or a line before it ended it.

It is ``python -m launcher.slurm.epilogue STAGE N``, and its exit status, which is the job's, is the
stage's where that is known, else N, which is srun's or that line's; never 0 for a stage of which
nobody knows that it is done, or SLURM would start the next.

A job process that is killed (SIGKILL; by the kernel, when memory runs out) leaves no word of it,
and one that cannot begin on its node has no records to write to. What SLURM knows of a job it
forgets; without accounting, within minutes. So this closes the record and the metadata if they are
open.

Where SLURM finds a job's processes by their parents (``proctrack/linuxproc``), one that has left
its own for good outlives the job, unless its guard or its job process ends it. So this does.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError, RecordError
from launcher.job import stage_files
from launcher.job.leftovers import carrying, end_left
from launcher.job.out_of_memory import ended_by_scheduler
from launcher.records import LaunchRecords
from launcher.slurm import client as slurm_client
from launcher.slurm.succession import is_succeeded
from launcher.status import (
    CANCELLED,
    DONE,
    FAILED,
    PENDING,
    JobStatus,
    cancel_requested,
    exit_reason,
)
from launcher.status import job_status as recorded_status

_LAST_WORDS_BYTES = 4096
_RESTARTS = b"SLURM_RESTART_COUNT="


def main(argv: list[str]) -> int:
    """Close what is open, end what is left; return the exit status for the job."""
    records = LaunchRecords(Path.cwd().parent)
    status = _settle(records, argv[0], int(argv[1]))
    kill_left(records.directory.name, os.environ["SLURM_JOB_ID"])
    return status


def _settle(records: LaunchRecords, stage: str, srun_status: int) -> int:
    attempt = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    with suppress(RecordError):
        status = recorded_status(records, stage)
        if is_succeeded(records, stage, attempt):  # what is open is that run's
            return srun_status or 1
        if not status.has_ended:
            _close(records, status, srun_status, attempt)
        elif status.state == DONE:  # what went wrong after it (a full disk) is no failure of it
            return 0
        elif status.exit_code:
            return status.exit_code
    return srun_status or 1


def kill_left(launch: str, job_id: str) -> None:
    """Kill what a stage has left on this node: it carries the ids of the launch and of the job.

    A stage whose guard is still there is left to that one for as long as it may take.
    """
    own = {os.fsencode(f"LAUNCHER_LAUNCH_ID={launch}"), os.fsencode(f"SLURM_JOB_ID={job_id}")}
    restarts = os.environb.get(b"SLURM_RESTART_COUNT")
    own_restarts = [] if restarts is None else [_RESTARTS + restarts]

    def left() -> list[int]:
        # Those of another run of the job have the same ids, and another count of restarts.
        return [
            pid
            for pid, environment in carrying(own).items()
            if [each for each in environment if each.startswith(_RESTARTS)] == own_restarts
        ]

    end_left(left, ask=False)


def _close(records: LaunchRecords, status: JobStatus, srun_status: int, attempt: int) -> None:
    job_id = os.environ["SLURM_JOB_ID"]
    told = None
    with suppress(LauncherError):
        told = slurm_client.ending(job_id, attempt)
    if told is not None and told.state == PENDING:  # it is to run again
        return
    said = Path(f"{job_id}_0_log.out").absolute()
    if cancel_requested(records, status.stage):
        state, reason = CANCELLED, f"cancelled ({exit_reason(srun_status)})"
    elif told is not None and not told.is_warning:
        asked = (_job(records, status.stage).get("resources") or {}).get("mem_gb")
        state, reason = told.state, ended_by_scheduler(told.reason, status.stage, asked)
    elif status.started is None:
        state, reason = FAILED, f"its job process could not begin; what it said: {said}"
    else:
        state, reason = (
            FAILED,
            f"its job process ended without a result: {exit_reason(srun_status)}",
        )
    records.append(
        status.stage, "ended", state=state, reason=reason, exit_code=None, attempt=attempt
    )
    with suppress(OSError):
        _leave_word(records, status, state, reason, said)


def _leave_word(
    records: LaunchRecords, status: JobStatus, state: str, reason: str, said: Path
) -> None:
    output = Path(_job(records, status.stage)["output"])
    inode = status.output_inode
    if inode is None:
        with stage_files.open_output(output) as file:
            inode = os.fstat(file.fileno()).st_ino
            with suppress(OSError):
                file.write(said.read_bytes()[-_LAST_WORDS_BYTES:])
            file.write(f"launcher: {reason}\n".encode(errors="surrogateescape"))
    stage_files.close_metadata(
        output,
        inode,
        state="interrupted" if state == CANCELLED else "failed",
        exit_code=None,
        reason=reason,
        job={"launch": records.directory.name, "job_id": status.job_id, "reason": reason},
    )


def _job(records: LaunchRecords, stage: str) -> dict[str, Any]:
    (job,) = (job for job in records.read_launch()["jobs"] if job["stage"] == stage)
    return dict(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
