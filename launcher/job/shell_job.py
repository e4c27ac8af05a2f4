"""A shell where a stage runs: ``python -m launcher.job.shell_job DIRECTORY STAGE [--own] [WORD…]``.

It has the stage's image, verified again, its mounts, environment and GPUs, in a container of its
own. Nothing of it is on record. With ``--own``, SLURM's allocation was made for it, and ends with
it: an srun that was killed leaves that to nobody else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from launcher.again.recorded_job import recorded_job
from launcher.clusters import local
from launcher.clusters.base import Allocation
from launcher.containers.base import INSIDE, ImageFormat, Mount
from launcher.errors import LauncherError
from launcher.images.pin import VerifiedImage
from launcher.job import guard, meter
from launcher.job.prepared import Prepared, prepare
from launcher.job.scratch import scratch
from launcher.job.stop_request import StopRequest
from launcher.launch import SHELL_LABEL, Job
from launcher.mounts import in_order
from launcher.processes import terminal
from launcher.processes.identity import ProcessId
from launcher.records import LaunchRecords
from launcher.results import read_metadata
from launcher.slurm.allocation import granted
from launcher.status import RUNNING, job_status

# With the image's own bash, where it has one.
SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash -i; exec sh -i")
_PIPE = "orders"
_NAME_LENGTH = 180  # of the 255 that a runtime takes


def main(argv: Sequence[str]) -> int:
    """Run the shell or the command; return its exit status."""
    directory, stage, *command = argv
    is_own = command[:1] == ["--own"]
    try:
        return run_shell(LaunchRecords(Path(directory)), stage, command[is_own:], is_own=is_own)
    except LauncherError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_status


def run_shell(
    records: LaunchRecords, stage: str, command: Sequence[str] = (), *, is_own: bool = False
) -> int:
    """Run a command, or a shell, as a stage of a launch is run; return its exit status.

    Args:
        records: of the launch.
        stage: its name.
        command: what to run; a shell when empty, for which there has to be a terminal.
        is_own: the allocation of SLURM was made for it.

    Raises:
        LauncherError: the image or the GPUs cannot be had.
    """
    job = shell_job(recorded_job(records, stage), command, is_terminal=terminal.is_terminal())
    # An interactive shell ignores SIGTERM.
    signum = signal.SIGHUP if job.run.terminal else signal.SIGTERM
    with StopRequest(in_foreground=True, signum=signum) as stop:
        guard.adopt_orphans()
        try:
            with _allocation(job, records, stop) as allocation:
                status = _run(job, allocation, stop)
                guard.kill_descendants()  # before its GPUs are given to others
        finally:
            if is_own and stop.requested and "SLURM_JOB_ID" in os.environ:
                from launcher.slurm import client as slurm_client

                slurm_client.cancel(os.environ["SLURM_JOB_ID"], force=False)
    return status


def shell_job(job: Job, command: Sequence[str], *, is_terminal: bool) -> Job:
    """Return a stage's job with another command, on one node and without its time limit. Pure."""
    process = json.dumps(ProcessId.of(os.getpid()).to_record())
    run = replace(
        job.run,
        command=tuple(command) or SHELL,
        name=f"{job.run.name[:_NAME_LENGTH]}-shell-{os.getpid()}",
        labels={**job.run.labels, SHELL_LABEL: process},
        num_nodes=1,
        terminal=is_terminal,
        used=None,
    )
    resources = replace(job.settings.resources, timeout_min=None, nodes=1)
    return replace(job, run=run, settings=replace(job.settings, resources=resources))


@contextmanager
def _allocation(job: Job, records: LaunchRecords, stop: StopRequest) -> Iterator[Allocation]:
    """Tell what the shell has of this machine: of SLURM's allocation, or GPUs that are free."""
    settings = job.settings.cluster
    if settings.name == "slurm":
        yield replace(granted(os.environ), rank=0, num_nodes=1, restart_count=0)
        return
    node = os.uname().nodename
    status = job_status(records, job.stage)
    if status.state == RUNNING:
        path = job.output.with_suffix(".metadata.json")
        told = read_metadata(path, output_inode=status.output_inode).get("job")
        gpus = told.get("gpus") if isinstance(told, Mapping) else None
        yield Allocation(node, gpus=tuple(map(str, gpus or ())))
        return

    def on_wait(reason: str) -> None:
        print(f"launcher: waiting for {reason}", file=sys.stderr)

    gpu_locks = settings.gpu_locks
    with local.allocated(job, stop, settings.gpus, gpu_locks, on_wait=on_wait) as given:
        if not isinstance(given, Allocation):
            raise LauncherError(given.reason)
        yield given


def _run(job: Job, allocation: Allocation, stop: StopRequest) -> int:
    """Run a shell that has been given its place."""
    if stop.requested:
        return 128 + signal.SIGTERM
    prepared = prepare(job, allocation)
    if job.run.command == SHELL:
        print(f"launcher: {where(job, allocation, prepared.image)}; exit ends it", file=sys.stderr)
    sys.stderr.flush()
    with prepared.places(), _heard(prepared) as heard:
        try:
            status = heard.exit_status(stop, None)
        except OSError as error:
            raise LauncherError(f"cannot start {job.container.name}: {error}") from error
    if status != 0:
        prepared.container.remove(prepared.run.name)
    return status


@contextmanager
def _heard(prepared: Prepared) -> Iterator[Prepared]:
    """Have the guard of a container with a terminal hear of it when this process is gone.

    Not even by SIGKILL, with which SLURM ends all processes of a step whose srun was killed, does a
    daemon hear of it. The pipe lies beside a guard that knows of it: the launch may be of an older
    launcher.
    """
    run = prepared.run
    if not run.terminal or prepared.container.image_format is not ImageFormat.OCI:
        yield prepared
        return
    with scratch(f"{run.name}.inside") as folder:
        for file in (guard, meter):
            shutil.copy(str(file.__file__), folder)
        pipe = folder / _PIPE
        os.mkfifo(pipe, 0o600)
        # Open for both, it waits for no reader; its end comes when this process is gone.
        descriptor = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        mounts = [each for each in run.mounts if each.target != INSIDE]
        mounts.append(Mount(folder, INSIDE, read_only=True))
        try:
            heard = replace(run, mounts=in_order(mounts), orders=INSIDE / _PIPE)
            yield replace(prepared, run=heard)
        finally:
            os.close(descriptor)


def where(job: Job, allocation: Allocation, image: VerifiedImage | None) -> str:
    """Say where a shell is: of which stage, in which image, on which node, with which GPUs."""
    inside = f"{job.container.name}, {image.verified}" if image else "no container"
    gpus = f"GPUs {','.join(allocation.gpus)}" if allocation.gpus else "no GPUs"
    return f"shell of stage {job.stage} in {inside}, on {allocation.node}, {gpus}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
