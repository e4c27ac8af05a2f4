"""The last line of a job's script, where its job process failed, or a line before it ended it.

It is ``python -m launcher.slurm_epilogue STAGE N``, and its exit status, which is the job's, is the
stage's where that is known, else N, which is srun's or that line's; never 0 for a stage of which
nobody knows that it is done, or SLURM would start the next.

A job process that is killed (SIGKILL; by the kernel, when memory runs out) leaves no word of it,
and one that cannot begin on its node has no records to write to. What SLURM knows of a job it
forgets; without accounting, within minutes. So this closes the record and the metadata if they are
open.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from launcher import slurm_client, stage_files
from launcher.errors import LauncherError, RecordError
from launcher.records import LaunchRecords
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


def main(argv: list[str]) -> int:
    """Close what is open; return the exit status for the job."""
    stage, srun_status = argv[0], int(argv[1])
    records = LaunchRecords(Path.cwd().parent)
    with suppress(RecordError):
        status = recorded_status(records, stage)
        if not status.has_ended:
            _close(records, status, srun_status)
        elif status.state == DONE:  # what went wrong after it (a full disk) is no failure of it
            return 0
        elif status.exit_code:
            return status.exit_code
    return srun_status or 1


def _close(records: LaunchRecords, status: JobStatus, srun_status: int) -> None:
    job_id = os.environ["SLURM_JOB_ID"]
    attempt = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    told = None
    with suppress(LauncherError):
        told = slurm_client.ending(job_id, attempt)
    if told is not None and told.state == PENDING:  # it is to run again
        return
    said = Path(f"{job_id}_0_log.out").absolute()
    if cancel_requested(records, status.stage):
        state, reason = CANCELLED, f"cancelled ({exit_reason(srun_status)})"
    elif told is not None and not told.is_warning:
        state, reason = told.state, told.reason
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
    (output,) = (
        Path(job["output"]) for job in records.read_launch()["jobs"] if job["stage"] == status.stage
    )
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
