"""What the job of a stage puts into ``<stage>.metadata.json``, under ``job``.

It is written before the container starts, so that one that never does leaves its reason there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.job import stage_files
from launcher.launch import image_record, mount_record
from launcher.masking import mask_arguments, mask_environment
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import CANCELLED, DONE, FAILED, PENDING

if TYPE_CHECKING:
    from launcher.clusters.base import Allocation
    from launcher.containers.base import Container, ContainerRun
    from launcher.images.pin import VerifiedImage
    from launcher.launch import Job

# How the stage framework calls the states that a job ends in.
_METADATA_STATES = {
    DONE: "done",
    FAILED: "failed",
    CANCELLED: "interrupted",
    PENDING: "interrupted",
}


class JobMetadata:
    """The job's part of the metadata of one stage run. Nothing here fails the stage."""

    def __init__(
        self, output: Path, inode: int, launch_dir: Path, job: Job, allocation: Allocation
    ) -> None:
        self._output, self._inode = output, inode
        records = LaunchRecords(launch_dir)
        submitted = {
            event["stage"]: event
            for event in records.events(LAUNCH)
            if event["event"] == "submitted"
        }
        own = submitted.get(job.stage, {})
        upstream = submitted.get(job.after or "", {})
        self._job: dict[str, Any] = {
            "launch": launch_dir.name,
            "launch_dir": str(launch_dir),
            "cluster": job.settings.cluster.name,
            "job_id": own.get("job_id"),
            "after": job.after,
            "dependency": f"afterok:{upstream['job_id']}" if upstream else None,
            "node": allocation.node,
            "host": os.uname().nodename,
            "num_nodes": allocation.num_nodes,
            "gpus": list(allocation.gpus),
            "resources_asked": asdict(job.settings.resources),
            "resources_allocated": dict(allocation.record),
            "partition": allocation.record.get("partition"),
            "restart_count": allocation.restart_count,
            "runtime": job.container.name,
            "image": image_record(job.pin),
            "code": code_record(records),
            "submit_time": _time(own.get("time")),
            "start_time": _now(),
        }

    def open(self) -> None:
        """Write what is known before anything is tried."""
        with suppress(OSError):
            stage_files.write_job_metadata(self._output, self._inode, self._job)

    def started(self, run: ContainerRun, image: VerifiedImage | None, container: Container) -> None:
        """Add how the container is started."""
        self._job.update(
            runtime_version=container.version(),
            image_verified=None if image is None else image.verified,
            mounts=[mount_record(mount) for mount in run.mounts],
            command=mask_arguments(container.command(run)),
            environment=mask_environment(run.environment),
            secrets=[name for name in run.secrets if name != stage_files.OUTPUT_INODE],
        )
        with suppress(OSError):
            stage_files.update_job_metadata(self._output, self._inode, self._job)

    def add(self, more: Mapping[str, Any]) -> None:
        """Add further fields."""
        self._job.update(more)

    def close(self, state: str, exit_code: int | None, reason: str) -> None:
        """Say how the stage ended; what it said itself stands."""
        self._job.update(end_time=_now(), exit_code=exit_code, signal=None, reason=reason)
        with suppress(ValueError):
            if exit_code is not None:
                self._job["signal"] = signal.Signals(exit_code - 128).name
        with suppress(OSError):
            stage_files.close_metadata(
                self._output,
                self._inode,
                state=_METADATA_STATES[state],
                exit_code=1 if exit_code is None else exit_code,
                reason=reason,
                job=self._job,
            )


def code_record(records: LaunchRecords) -> dict[str, Any]:
    """Return what code a launch runs; in an image without git, no stage can tell itself."""
    snapshot = records.read_launch().get("snapshot") or {}
    told = ("path", "commit", "branch", "dirty", "digest")
    roots = [{key: root.get(key) for key in told} for root in snapshot.get("roots", ())]
    return {"snapshot": snapshot.get("mode"), "digest": snapshot.get("digest"), "roots": roots}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
