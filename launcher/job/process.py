"""The process of a job: ``python -m launcher.job.process FOLDER``, of which the rest is submitit's.

Before submitit loads the job's pickle, which is to run whatever stands in it, this sees that it is
the one that was submitted, and that nobody else could have put another there.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.errors import RecordError
from launcher.private import check_pickle, check_private, check_unwritten
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import FAILED

# A job may start before its submission is on record, or before that is seen on its node.
_RECORD_PATIENCE_S = 60.0
_POLL_S = 0.02


def main() -> None:
    """Check what is to be loaded, then hand over to submitit.

    Raises:
        RecordError: it is not to be loaded; that is on record.
    """
    folder = Path(sys.argv[1]).resolve()
    check_job(LaunchRecords(folder.parent), os.environ)
    from submitit.core.submission import submitit_main

    submitit_main()


def check_job(records: LaunchRecords, environ: Any) -> None:
    """Refuse a job whose pickle may be another than the one that was submitted.

    Raises:
        RecordError: it may be.
    """
    job_id = environ.get("SUBMITIT_LOCAL_JOB_ID") or environ["SLURM_JOB_ID"]
    submission = _submission(records, job_id)
    folder = records.directory / "submitit"
    try:
        check_private(records.directory)
        check_unwritten(folder)
        check_pickle(folder / f"{job_id}_submitted.pkl", submission.get("pickle_sha256"))
    except RecordError as error:
        if environ.get("SLURM_PROCID", "0") == "0":
            told = {"state": FAILED, "reason": str(error), "exit_code": None}
            with suppress(RecordError):  # it is the last word of this process as well
                records.append(submission["stage"], "ended", **told)
        raise


def _submission(records: LaunchRecords, job_id: str) -> dict[str, Any]:
    """Wait for the event that tells of the job's submission.

    Raises:
        RecordError: there is none, since the launcher ended before.
    """
    submitter = ProcessId.from_record(records.read_launch()["launcher"])
    patience_end = time.monotonic() + _RECORD_PATIENCE_S
    while True:
        may_come = submitter.is_alive() and time.monotonic() < patience_end
        for event in records.events(LAUNCH):
            if event["event"] == "submitted" and event["job_id"] == job_id:
                return event
        if not may_come:
            raise RecordError(f"job {job_id} is not on record as one of {records.directory}")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
