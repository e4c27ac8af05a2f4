"""What a job leaves open that was killed together with all who would have closed it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher import registry
from launcher.errors import LauncherError
from launcher.job import stage_files
from launcher.launch import container_name
from launcher.records import LaunchRecords
from launcher.status import CANCELLED, JobStatus


def close(records: LaunchRecords, status: JobStatus) -> None:
    """Close record and metadata of a stage that had begun, and remove its container.

    What has no end on record by then is taken to have had one in ``status``; all else is left as
    it is. What cannot be written stays open.

    Args:
        records: of the launch.
        status: how the job ended; no process of it is left.
    """
    if status.started is None or status.ended is not None:
        return
    with suppress(LauncherError, OSError):
        jobs = records.read_launch()["jobs"]
        (job,) = (job for job in jobs if job["stage"] == status.stage)
        _remove_container(records, job)
        state, reason = status.state, status.reason
        records.append(status.stage, "ended", state=state, reason=reason, exit_code=None)
        if status.output_inode is not None:
            stage_files.close_metadata(
                Path(job["output"]),
                status.output_inode,
                state="interrupted" if state == CANCELLED else "failed",
                exit_code=None,
                reason=reason,
                job={"reason": reason},
            )


def _remove_container(records: LaunchRecords, job: dict[str, Any]) -> None:
    with suppress(LauncherError, KeyError, TypeError, ValueError):
        settings = job["container"]
        runtime = registry.load("containers", settings["name"])
        container = runtime.Implementation(runtime.Settings(**settings))
        container.remove(container_name(records.directory, job["stage"]))
