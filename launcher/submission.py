"""From jobs to a running chain: all of it, or none."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.again.continued import Continued
from launcher.again.fingerprint import Basis, compared_configs, fingerprint, write_configs
from launcher.again.request import LaunchRequest
from launcher.clusters.base import Cluster, SweepingCluster
from launcher.config import to_record
from launcher.errors import LauncherError, RecordError, SubmissionError
from launcher.job import guard, meter
from launcher.job.copied_code import copy_code
from launcher.launch import HOME_DIR, INSIDE_DIR, SNAPSHOT_DIR, Launch
from launcher.launches.claims import claim, release
from launcher.masking import mask_arguments
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords
from launcher.snapshot import SnapshotPlan, take_snapshot
from launcher.snapshot.files import CodeFiles
from launcher.snapshot.provenance import git_state, versions
from launcher.snapshot.recorded import RecordedCode
from launcher.status import job_status


def submit(
    launch: Launch,
    cluster: Cluster,
    *,
    command_line: Sequence[str],
    snapshot: SnapshotPlan | RecordedCode,
    folders: Sequence[Path] = (),
    notices: Sequence[str] = (),
    request: LaunchRequest | None = None,
    continued: Continued | None = None,
    queue: bool = False,
) -> LaunchRecords:
    """Copy the code, write the launch record, submit all jobs in order, and let the first start.

    Args:
        launch: what to submit.
        cluster: where.
        command_line: as it was typed.
        snapshot: of the code, or that of an earlier launch.
        folders: to be made, since stages write to them and they are mounted.
        notices: what the person at the terminal was told.
        request: what was asked for, to be asked for again.
        continued: the launch that this one goes on from.
        queue: whether it waits for launches that write to the same folders; else it is refused.

    Raises:
        ClaimError: another launch writes to one of its folders.
        SubmissionError: a job was refused; those submitted before it are cancelled.
        RecordError: the launch directory cannot be written, or another launch has just made it.
    """
    records = LaunchRecords.create(launch.directory)
    try:
        launch = claim(launch, cluster, queue=queue)
        prepare_directory(launch.directory, folders)
        copy_code(launch.directory)
        recorded = snapshot if isinstance(snapshot, RecordedCode) else None
        taken = take_snapshot(snapshot) if isinstance(snapshot, SnapshotPlan) else snapshot.take()
        basis = Basis(
            CodeFiles.recorded(launch.directory / SNAPSHOT_DIR), compared_configs(launch.plan)
        )
        write_configs(records, basis.configs)
        told = {
            "command_line": mask_arguments(command_line),
            "snapshot": taken,
            "notices": list(notices),
            "jobs": _job_records(launch, basis, continued),
            **({"git": recorded.git} if recorded else {}),
            "queued_behind": [str(each) for each in launch.jobs[0].behind],
            **({"request": request.to_record()} if request else {}),
            **({continued.link: str(continued.earlier.directory)} if continued else {}),
        }
        records.write_launch(_record(launch, records, told))
        if continued is not None:
            continued.write(records)
    except BaseException:
        release(launch)
        shutil.rmtree(launch.directory, ignore_errors=True)  # nothing half-written
        raise
    _submit_jobs(launch, cluster, records)
    if continued is not None:
        with suppress(RecordError):  # the launch is on; its own record names the earlier one
            continued.tell_earlier(records)
    return records


def _record(launch: Launch, records: LaunchRecords, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": records.directory.name,
        "created": time.time(),
        "launcher": ProcessId.of(os.getpid()).to_record(),
        "working_dir": str(Path.cwd()),
        "recipe_dir": str(launch.recipe.directory),
        "code_root": str(launch.recipe.code_root),
        "git": git_state(launch.recipe.code_root),
        "versions": versions(),
        "config": to_record(launch.config),
        "plan": launch.plan.to_record(),
        **told,
    }


def _job_records(launch: Launch, basis: Basis, continued: Continued | None) -> list[dict[str, Any]]:
    """Return the records of the jobs, in the order of the plan, with those that are taken over."""
    carried = continued.job_records() if continued is not None else {}
    own = {
        job.stage: {**job.to_record(), "fingerprint": fingerprint(job, launch, basis)}
        for job in launch.jobs
    }
    order = dict.fromkeys([stage.name for stage in launch.plan.stages])
    return [{**carried, **own}[stage] for stage in order if stage in carried or stage in own]


def _submit_jobs(launch: Launch, cluster: Cluster, records: LaunchRecords) -> None:
    submitted: list[str] = []
    all_stages = [job.stage for job in launch.jobs]  # the rest must not stay pending for ever
    doing = "prepare the submission"
    try:
        for job in launch.jobs:
            doing = f"submit {job.stage}"
            handle = cluster.submit(job, launch, records)
            records.append(
                LAUNCH,
                "submitted",
                stage=job.stage,
                job_id=handle.job_id,
                process=handle.process.to_record() if handle.process else None,
                pickle_sha256=handle.pickle_sha256,
            )
            submitted.append(job.stage)
        doing = f"release {all_stages[0]}"
        records.append(LAUNCH, "released")
        cluster.release(records)
    except KeyboardInterrupt:
        cancel(records, all_stages, cluster)
        raise
    except (OSError, RuntimeError, LauncherError) as error:
        cancel(records, all_stages, cluster)
        if isinstance(cluster, SweepingCluster):
            cluster.sweep(records)
        undone = f" What had been submitted is cancelled: {', '.join(submitted)}."
        raise SubmissionError(
            f"could not {doing}: {str(error).rstrip('.')}.{undone if submitted else ''}"
        ) from error


def prepare_directory(directory: Path, folders: Sequence[Path]) -> None:
    """Make what containers see of a launch directory, the guard and a home, and further folders.

    Raises:
        RecordError: one cannot be written.
    """
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for name in (INSIDE_DIR, HOME_DIR):
            (directory / name).mkdir(mode=0o700)
        for module in (guard, meter):
            source = Path(str(module.__file__))
            shutil.copyfile(source, directory / INSIDE_DIR / source.name)
    except OSError as error:
        is_ours = error.filename in (guard.__file__, meter.__file__)
        where = directory if is_ours else error.filename
        raise RecordError(
            f"cannot write {where}: {error.strerror}. Choose another folder with launches_dir=PATH."
        ) from error


def cancel(
    records: LaunchRecords, stages: Sequence[str], cluster: Cluster, *, force: bool = False
) -> list[str]:
    """Ask the jobs of these stages to stop, the last in the chain first; return those asked.

    First on record, then by signal: a job that is only starting, and so cannot be signalled yet,
    looks at the record.
    """
    open_stages = [stage for stage in stages if not job_status(records, stage).has_ended]
    if open_stages:
        records.append(LAUNCH, "cancel_requested", stages=open_stages)
    for stage in reversed(open_stages):
        status = job_status(records, stage)
        if status.job_id is not None:
            cluster.cancel(status, force=force)
    return open_stages
