"""The job of one stage: the callable that submitit runs, on whatever node the cluster chose.

It waits for its turn where the cluster does not, sees that the image is the one that was pinned,
starts the stage's container, and records what became of it. It lives on the host, outside of any
container.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from launcher import registry
from launcher.clusters.base import Allocation
from launcher.containers.base import Container, ContainerRun, Feature, ImageFormat
from launcher.errors import LauncherError, RecordError, StageFailed
from launcher.job import guard
from launcher.job.container_run import container_run
from launcher.job.lost_daemon import daemon_went_away, end_what_it_left
from launcher.job.metadata import JobMetadata
from launcher.job.out_of_memory import out_of_memory
from launcher.job.scratch import scratch
from launcher.job.stage_files import OUTPUT_INODE, locate_output, open_output
from launcher.job.stage_outputs import list_outputs, write_outputs
from launcher.job.stop_request import StopRequest
from launcher.job.used import UseWatch
from launcher.mounts.targets import held_targets
from launcher.output import last_failure
from launcher.processes import terminal
from launcher.processes.identity import signal_on_parent_death
from launcher.records import LaunchRecords
from launcher.results import read_metadata
from launcher.slurm.succession import Succession
from launcher.snapshot import changed_since
from launcher.status import CANCELLED, DONE, FAILED, PENDING, cancel_requested, exit_reason

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
class Outcome:
    """How a job ended: the state to record, and the reason in words.

    Pending is one that is to run again: it was put back into its queue. ``cause`` says for what, in
    a word, where that is counted.
    """

    state: str
    reason: str
    exit_code: int | None = None
    cause: str | None = None


@dataclass(frozen=True)
class StageJob:
    """Callable for submitit.

    Attributes:
        launch_dir: where to record.
        job: what to run.
        in_foreground: whether what the stage prints is shown here as well.
    """

    launch_dir: Path
    job: Job
    in_foreground: bool = False

    def __call__(self) -> None:
        """Run the stage to its end.

        Raises:
            StageFailed: it did not complete; submitit and the cluster record a failed job.
        """
        records = LaunchRecords(self.launch_dir)
        try:
            with StopRequest(in_foreground=self.in_foreground) as stop:
                self._run(records, stop)
        except (StageFailed, RecordError):
            raise
        except Exception as error:
            # Without a word of it on record it would look as if the job had been killed.
            reason = f"its job failed by itself: {type(error).__name__}: {error}"
            self._record_end(records, Outcome(FAILED, reason))
            raise

    def _run(self, records: LaunchRecords, stop: StopRequest) -> None:
        parent_pid = _parent_pid()
        if not self.in_foreground:  # there the parent is a shell, which may go
            signal_on_parent_death(signal.SIGTERM, parent_pid)
        guard.adopt_orphans()  # what a guard that was itself killed leaves behind
        if cancel_requested(records, self.job.stage):
            stop.request()  # its signal came before there was anybody to hear it
        cluster = registry.load("clusters", self.job.settings.cluster.name)

        def settled(outcome: Outcome, allocation: Allocation | None = None) -> Outcome:
            is_lost = not self.in_foreground and os.getppid() != parent_pid
            is_lost = is_lost and not cancel_requested(records, self.job.stage)
            if outcome.state == CANCELLED and is_lost:
                reason = "the process that holds its job was killed"
                return replace(outcome, state=FAILED, reason=reason)
            if allocation is None or not hasattr(cluster, "settled"):
                return outcome
            told: Outcome = cluster.settled(outcome, self.job, allocation, records, stop)
            return told

        rank = attempt = 0
        used: Mapping[str, Any] = {}
        with cluster.allocation(self.job, records, stop) as granted:
            if isinstance(granted, Allocation):
                rank, attempt = granted.rank, granted.restart_count
                stage_run = _StageRun(self, records, stop, granted)
                outcome = stage_run.run(settled)
                used = stage_run.used
            else:
                outcome = settled(granted)
            guard.kill_descendants()  # before what it was allocated is given to others
        if rank == 0:
            self._record_end(records, outcome, attempt, used)
        if outcome.state != DONE:
            raise StageFailed(f"{self.job.stage} {outcome.state}: {outcome.reason}")

    def _record_end(
        self,
        records: LaunchRecords,
        outcome: Outcome,
        attempt: int = 0,
        used: Mapping[str, Any] | None = None,
    ) -> None:
        told = {"reason": outcome.reason, "attempt": attempt, "used": used or None}
        if outcome.state == PENDING:
            return records.append(self.job.stage, "requeued", cause=outcome.cause, **told)
        records.append(
            self.job.stage, "ended", state=outcome.state, exit_code=outcome.exit_code, **told
        )


class _StageRun:
    """A stage whose turn has come, with what it was allocated."""

    def __init__(
        self, stage: StageJob, records: LaunchRecords, stop: StopRequest, allocation: Allocation
    ) -> None:
        job = stage.job
        self.launch_dir, self.job, self.records = stage.launch_dir, job, records
        self.stop, self.allocation, self.in_foreground = stop, allocation, stage.in_foreground
        runtime = registry.load("containers", job.container.name)
        self.container: Container = runtime.Implementation(job.container)
        rank = f"_rank{allocation.rank}" if allocation.rank else ""
        self.output = job.output.with_name(f"{job.output.stem}{rank}.out")
        self.used: Mapping[str, Any] = {}

    def run(self, settled: Callable[[Outcome, Allocation], Outcome]) -> Outcome:
        """Run the stage to its end, and record it by what ``settled`` makes of it."""
        if self.stop.requested:
            before = Outcome(CANCELLED, f"{self.stop.why} before it started")
            return settled(before, self.allocation)
        attempt = self.allocation.restart_count
        with Succession(self.records, self.job.stage, attempt, self.stop) as succession:
            return self._run_in_turn(settled, succession)

    def _run_in_turn(
        self, settled: Callable[[Outcome, Allocation], Outcome], succession: Succession
    ) -> Outcome:
        try:
            output = open_output(self.output)
        except OSError as error:
            return Outcome(FAILED, f"cannot write {self.output}: {error.strerror}")
        with output:
            opened = os.fstat(output.fileno())
            inode = opened.st_ino
            if self.allocation.rank == 0:
                self.records.append(
                    self.job.stage,
                    "started",
                    host=self.allocation.node,
                    pid=os.getpid(),
                    output_inode=inode,
                    attempt=self.allocation.restart_count,
                )
            succession.wait_for_earlier()
            metadata = JobMetadata(self.output, inode, self.launch_dir, self.job, self.allocation)
            outcome = settled(self._start_in(output, inode, metadata), self.allocation)
            if outcome.exit_code is None and outcome.state == FAILED:
                self._note(output, outcome.reason)
        metadata.add({"used": self.used or None})
        metadata.close(outcome.state, outcome.exit_code, outcome.reason)
        if self.allocation.rank == 0 and outcome.state == DONE:
            # One that was ended has no time for it: its end has to be recorded before its own.
            with suppress(OSError, LauncherError, KeyError):  # without, the stage is run again
                self._record_outputs(opened)
        return outcome

    def _record_outputs(self, opened: os.stat_result) -> None:
        """Record what the stage has written; of one that kept what was there, all that is."""
        folder = self.job.output.parent
        stages = self.records.read_launch()["plan"]["stages"]
        others = {Path(stage["log_dir"]) for stage in stages} - {folder}
        recorded = read_metadata(
            self.job.output.with_suffix(".metadata.json"), output_inode=opened.st_ino
        )
        keeps = recorded.get("kept") is True and not (folder / "run.py").exists()
        since_ns = 0 if keeps else opened.st_ctime_ns
        outputs = list_outputs(folder, others, since_ns=since_ns)
        write_outputs(self.records, self.job.stage, outputs)

    def _start_in(self, output: IO[bytes], inode: int, metadata: JobMetadata) -> Outcome:
        metadata.add(self._changed_code(output))
        metadata.open()
        try:
            image = self._image()
            run = container_run(
                self.job,
                self.allocation,
                image,
                environ=os.environ,
                image_format=self.container.image_format,
            )
            metadata.started(run, image, self.container)
            # Code that was deleted while the job was queued needs a place to be mounted over.
            with held_targets(run.mounts), self._scratch(run):
                return self._supervise(run, output, {OUTPUT_INODE: str(inode)})
        except LauncherError as error:
            return Outcome(FAILED, str(error))

    def _changed_code(self, output: IO[bytes]) -> dict[str, list[str]]:
        """Name what was edited since the submission, where a stage sees the tree as it is now."""
        snapshot = self.records.read_launch().get("snapshot")
        if not snapshot or snapshot["copied"]:
            return {}
        try:
            changed = changed_since(snapshot)
        except RecordError as error:
            self._note(output, f"cannot tell whether the code has changed: {error}")
            return {}
        if changed:
            names = ", ".join(changed)
            self._note(output, f"the code has changed since this launch was submitted: {names}")
        return {"code_changed": changed}

    def _note(self, output: IO[bytes], text: str) -> None:
        """Say something in the stage's raw output."""
        line = f"launcher: {text}\n".encode(errors="surrogateescape")
        with suppress(OSError):  # a full disk is the stage's to complain of
            os.write(output.fileno(), line)
        if self.in_foreground:
            terminal.say(lambda: sys.stdout.buffer.write(line))

    def _image(self) -> VerifiedImage | None:
        if self.job.pin is None:
            return None
        from launcher.images.verify import prepare_image

        return prepare_image(self.job.pin, self.container, self.job.image_cache)

    def _scratch(self, run: ContainerRun) -> AbstractContextManager[object]:
        """Have the folder that is ``/tmp`` in a container of which the image cannot be written."""
        in_file = self.container.image_format in (ImageFormat.SIF, ImageFormat.SQSH)
        return scratch(run.name) if in_file else nullcontext()

    def _supervise(self, run: ContainerRun, output: IO[bytes], more: Mapping[str, str]) -> Outcome:
        command = self.container.command(run)
        inherited = {**job_environment(os.environ), **more}
        environment = self.container.client_environment(run, inherited)
        try:
            with UseWatch(run.used, self.allocation.gpus) as watch:
                exit_code = _as_shell(self._exit_status(run, command, environment, output))
            self.used = watch.used
        except OSError as error:
            return Outcome(FAILED, f"cannot start {command[0]}: {error.strerror}")
        gone = None
        if exit_code != 0:
            gone = self._daemon_went_away(run, output, exit_code)
            self.container.remove(run.name)
        if run.terminal and exit_code == 128 + signal.SIGINT and not self.stop.requested:
            return Outcome(CANCELLED, "interrupted by Ctrl-C", exit_code)
        outcome = _outcome(exit_code, self.stop)
        if outcome.state == FAILED and not self.stop.why:
            reason = gone or self._out_of_memory(run, output, exit_code)
            return replace(outcome, reason=reason or outcome.reason)
        return outcome

    def _daemon_went_away(self, run: ContainerRun, output: IO[bytes], exit_code: int) -> str | None:
        inode = os.fstat(output.fileno()).st_ino
        lines = last_failure(locate_output(self.output, inode) or self.output)
        gone = None if self.stop.requested else daemon_went_away(self.container, exit_code, lines)
        if gone is not None:
            end_what_it_left(run, inode)
        return gone

    def _out_of_memory(self, run: ContainerRun, output: IO[bytes], exit_code: int) -> str | None:
        inode = os.fstat(output.fileno()).st_ino
        has_own_shm = Feature.SHARED_MEMORY in self.container.features
        return out_of_memory(
            self.job.stage,
            last_failure(locate_output(self.output, inode) or self.output),
            exit_code=exit_code,
            used=self.used,
            mem_gb=self.job.settings.resources.mem_gb,
            shm_gb=run.shm_gb if has_own_shm else None,
        )

    def _exit_status(
        self,
        run: ContainerRun,
        command: list[str],
        environment: dict[str, str],
        output: IO[bytes],
    ) -> int:
        """Start the stage's command, pass on what it is asked to do, and wait for its end."""
        held = self.allocation.held
        if run.terminal:
            in_container = self.container.image_format is not ImageFormat.NONE
            attended = terminal.start(
                command,
                cwd=run.working_dir,
                env=environment,
                output=output,
                grace_s=run.stop_grace_s,
                container=(self.job.container, run.name),
                held=held,
                used=None if in_container else run.used,  # there the guard sees to it
            )
            self.stop.pass_on_to(attended.control)
            return terminal.attend(attended, output, in_container=in_container)
        process = subprocess.Popen(
            command,
            cwd=run.working_dir,
            env=environment,
            stdin=subprocess.PIPE,  # its end tells the guard that this process is gone
            stdout=subprocess.PIPE if self.in_foreground else output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=held,
        )
        with process:
            assert process.stdin is not None
            self.stop.pass_on_to(process.stdin, process.kill)
            return terminal.tee(process, output) if self.in_foreground else process.wait()


def _parent_pid() -> int:
    """Return the process that holds this job, be it still there or not."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # there its id is the job's
        return int(os.environ["SUBMITIT_LOCAL_JOB_ID"])
    return os.getppid()


def job_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the job's environment without what is there for the job process alone."""
    return {name: value for name, value in inherited.items() if not _OF_THE_JOB_PROCESS.match(name)}


def _outcome(exit_code: int, stop: StopRequest) -> Outcome:
    how = exit_reason(exit_code)
    if exit_code == 0:
        return Outcome(DONE, "", 0)
    if stop.why == CANCELLED:
        return Outcome(CANCELLED, f"cancelled ({how})", exit_code)
    if stop.why:
        return Outcome(FAILED, f"{stop.why} ({how})", exit_code)
    if stop.warned:
        return Outcome(FAILED, f"{how}, after it was {stop.warned}", exit_code)
    return Outcome(FAILED, how, exit_code)


def _as_shell(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode
