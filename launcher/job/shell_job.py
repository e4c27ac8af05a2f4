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
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from launcher import registry
from launcher.again.recorded_job import recorded_job
from launcher.clusters import local
from launcher.clusters.base import Allocation
from launcher.containers.base import INSIDE, Container, ContainerRun, ImageFormat, Mount
from launcher.errors import LauncherError
from launcher.images.pin import VerifiedImage
from launcher.job import guard, meter
from launcher.job.container_run import container_run
from launcher.job.scratch import scratch
from launcher.job.stage_job import job_environment
from launcher.job.stop_request import StopRequest
from launcher.launch import SHELL_LABEL, Job
from launcher.mounts import in_order
from launcher.mounts.targets import held_targets
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
    with StopRequest(in_foreground=True) as stop:
        guard.adopt_orphans()
        try:
            with _allocation(job, records, stop) as allocation:
                status = _Shell(records, job, allocation, stop).run()
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


class _Shell:
    """A shell that has been given its place."""

    def __init__(
        self, records: LaunchRecords, job: Job, allocation: Allocation, stop: StopRequest
    ) -> None:
        self.records, self.job, self.allocation, self.stop = records, job, allocation, stop
        runtime = registry.load("containers", job.container.name)
        self.container: Container = runtime.Implementation(job.container)

    def run(self) -> int:
        if self.stop.requested:
            return 128 + signal.SIGTERM
        job, image = self.job, self._image()
        format_ = self.container.image_format
        run = container_run(job, self.allocation, image, environ=os.environ, image_format=format_)
        if not job.run.command or job.run.command == SHELL:
            print(f"launcher: {where(job, self.allocation, image)}; exit ends it", file=sys.stderr)
        sys.stderr.flush()
        with held_targets(run.mounts), self._scratch(run), self._heard(run) as run:
            try:
                status = self._exit_status(run)
            except OSError as error:
                raise LauncherError(f"cannot start {job.container.name}: {error}") from error
        if status != 0:
            self.container.remove(run.name)
        return status if status >= 0 else 128 - status

    def _image(self) -> VerifiedImage | None:
        if self.job.pin is None:
            return None
        from launcher.images.verify import prepare_image

        return prepare_image(self.job.pin, self.container, self.job.image_cache)

    def _scratch(self, run: ContainerRun) -> AbstractContextManager[object]:
        in_file = self.container.image_format in (ImageFormat.SIF, ImageFormat.SQSH)
        return scratch(run.name) if in_file else nullcontext()

    @contextmanager
    def _heard(self, run: ContainerRun) -> Iterator[ContainerRun]:
        """Have the guard of a container with a terminal hear of it when this process is gone.

        Not even by SIGKILL, with which SLURM ends all processes of a step whose srun was killed,
        does a daemon hear of it. The pipe lies beside a guard that knows of it: the launch may be
        of an older launcher.
        """
        if not run.terminal or self.container.image_format is not ImageFormat.OCI:
            yield run
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
                yield replace(run, mounts=in_order(mounts), orders=INSIDE / _PIPE)
            finally:
                os.close(descriptor)

    def _exit_status(self, run: ContainerRun) -> int:
        command = self.container.command(run)
        environment = self.container.client_environment(run, job_environment(os.environ))
        held = self.allocation.held
        if not run.terminal:
            process = subprocess.Popen(
                command,
                cwd=run.working_dir,
                env=environment,
                stdin=subprocess.PIPE,  # its end tells the guard that this process is gone
                start_new_session=True,
                pass_fds=held,
            )
            with process:
                assert process.stdin is not None
                self.stop.pass_on_to(process.stdin, process.kill)
                return process.wait()
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  what is typed here is not kept
            attended = terminal.start(
                command,
                cwd=run.working_dir,
                env=environment,
                output=nowhere,
                grace_s=run.stop_grace_s,
                container=(self.job.container, run.name),
                held=held,
            )
            self.stop.pass_on_to(attended.control)
            in_container = self.container.image_format is not ImageFormat.NONE
            return terminal.attend(attended, nowhere, in_container=in_container)


def where(job: Job, allocation: Allocation, image: VerifiedImage | None) -> str:
    """Say where a shell is: of which stage, in which image, on which node, with which GPUs."""
    inside = f"{job.container.name}, {image.verified}" if image else "no container"
    gpus = f"GPUs {','.join(allocation.gpus)}" if allocation.gpus else "no GPUs"
    return f"shell of stage {job.stage} in {inside}, on {allocation.node}, {gpus}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
