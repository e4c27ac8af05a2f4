"""A command made ready on its node and run there: what a stage and a shell have in common."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from launcher import registry
from launcher.clusters.base import Allocation
from launcher.containers.base import Container, ContainerRun, ImageFormat
from launcher.job.container_run import container_run
from launcher.job.scratch import scratch
from launcher.job.stop_request import StopRequest
from launcher.mounts.targets import held_targets
from launcher.processes import terminal

if TYPE_CHECKING:
    from launcher.images.pin import VerifiedImage
    from launcher.launch import Job

# What belongs to the job process. By it the stage would take itself for a submitit job, or for one
# of srun's tasks: Lightning then starts no processes of its own, and refuses more than one GPU.
_OF_THE_JOB_PROCESS = re.compile(
    r"SUBMITIT_(?!LOCAL_JOB_ID$)|SRUN_|PMIX?_"
    r"|SLURM_(NTASKS|NPROCS|PROCID|LOCALID|TASK|GTIDS|STEP_(?!GPUS$)|STEPID$|SRUN_|LAUNCH_NODE_)"
)


@dataclass(frozen=True)
class Prepared:
    """A job's command as it is run on this node.

    Attributes:
        job: whose command it is.
        allocation: what the job was given here.
        container: the runtime.
        image: as it was found here; None without a container.
        run: what the runtime is told.
    """

    job: Job
    allocation: Allocation
    container: Container
    image: VerifiedImage | None
    run: ContainerRun

    @property
    def command(self) -> list[str]:
        """The command line that starts it."""
        return self.container.command(self.run)

    @contextmanager
    def places(self) -> Iterator[None]:
        """Have what it is mounted over, and its ``/tmp``, as long as this is entered.

        Raises:
            LauncherError: there cannot be such places.
        """
        # Code that was deleted while the job was queued needs a place to be mounted over.
        with held_targets(self.run.mounts), self._scratch():
            yield

    def exit_status(
        self,
        stop: StopRequest,
        output: IO[bytes] | None,
        *,
        is_shown: bool = True,
        more: Mapping[str, str] | None = None,
    ) -> int:
        """Start it, pass on what it is asked to do, and wait for its end.

        Args:
            stop: the wish that it should.
            output: file that keeps what it prints; None where that is not kept.
            is_shown: whether what it prints is shown here.
            more: variables of the process that starts it.

        Returns:
            Its exit status, as a shell has it.

        Raises:
            OSError: it cannot start.
        """
        inherited = {**job_environment(os.environ), **(more or {})}
        environment = self.container.client_environment(self.run, inherited)
        if not self.run.terminal:
            returncode = self._unattended(stop, output, environment, is_shown=is_shown)
        elif output is not None:
            returncode = self._attended(stop, output, environment)
        else:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                returncode = self._attended(stop, nowhere, environment)
        return returncode if returncode >= 0 else 128 - returncode

    def _attended(
        self, stop: StopRequest, output: IO[bytes], environment: Mapping[str, str]
    ) -> int:
        in_container = self.container.image_format is not ImageFormat.NONE
        attended = terminal.start(
            self.command,
            cwd=self.run.working_dir,
            env=environment,
            output=output,
            grace_s=self.run.stop_grace_s,
            container=(self.job.container, self.run.name),
            held=self.allocation.held,
            used=None if in_container else self.run.used,  # there the guard sees to it
        )
        stop.pass_on_to(attended.control)
        return terminal.attend(attended, output, in_container=in_container)

    def _unattended(
        self,
        stop: StopRequest,
        output: IO[bytes] | None,
        environment: Mapping[str, str],
        *,
        is_shown: bool,
    ) -> int:
        is_both = output is not None and is_shown
        process = subprocess.Popen(
            self.command,
            cwd=self.run.working_dir,
            env=environment,
            stdin=subprocess.PIPE,  # its end tells the guard that this process is gone
            stdout=subprocess.PIPE if is_both else output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self.allocation.held,
        )
        with process:
            assert process.stdin is not None
            stop.pass_on_to(process.stdin, process.kill)
            if output is not None and is_shown:
                return terminal.tee(process, output)
            return process.wait()

    def _scratch(self) -> AbstractContextManager[object]:
        # That of a container of which the image cannot be written.
        in_file = self.container.image_format in (ImageFormat.SIF, ImageFormat.SQSH)
        return scratch(self.run.name) if in_file else nullcontext()


def prepare(job: Job, allocation: Allocation) -> Prepared:
    """See that the image is the one that was pinned, and fill in what this node tells.

    Raises:
        LauncherError: the image cannot be had, or is another one.
    """
    container: Container = registry.load("containers", job.container.name).Implementation(
        job.container
    )
    image = None
    if job.pin is not None:
        from launcher.images.verify import prepare_image

        image = prepare_image(job.pin, container, job.image_cache)
    format_ = container.image_format
    run = container_run(job, allocation, image, environ=os.environ, image_format=format_)
    return Prepared(job, allocation, container, image, run)


def job_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the job's environment without what is there for the job process alone."""
    return {name: value for name, value in inherited.items() if not _OF_THE_JOB_PROCESS.match(name)}
