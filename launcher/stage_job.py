"""The job of one stage: the callable that submitit runs, on whatever node the cluster chose.

It waits for its turn where the cluster does not, starts the stage's command, passes signals on,
and records what became of it. It lives on the host, outside of any container.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from launcher import guard
from launcher.errors import StageFailed
from launcher.process import signal_on_parent_death
from launcher.records import LaunchRecords
from launcher.stage_files import OUTPUT_INODE, close_metadata, open_output
from launcher.status import CANCELLED, DONE, FAILED, cancel_requested, exit_reason

if TYPE_CHECKING:
    from launcher.launch import Job

# What belongs to the job process; the stage would take itself for a submitit job by it.
_SUBMITIT_PREFIX, _KEPT = "SUBMITIT_", "SUBMITIT_LOCAL_JOB_ID"
# How the stage framework calls the states that a job ends in.
_METADATA_STATES = {DONE: "done", FAILED: "failed", CANCELLED: "interrupted"}


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the state to record, and the reason in words."""

    state: str
    reason: str


class StopRequest:
    """Remembers that this job was asked to stop, and passes the request on to the stage."""

    def __init__(self) -> None:
        self.requested = False
        self._process: subprocess.Popen[bytes] | None = None
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)

    def request(self) -> None:
        """Act as if the signal had come."""
        self.requested = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def pass_on_to(self, process: subprocess.Popen[bytes]) -> None:
        """Name the process to stop; one that was asked for before it existed is not lost."""
        self._process = process
        if self.requested:
            self.request()

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self.request()


@dataclass(frozen=True)
class StageJob:
    """Callable for submitit.

    Attributes:
        launch_dir: where to record.
        job: what to run.
        gate: waits until the stage may start, for clusters that do not do so themselves.
    """

    launch_dir: Path
    job: Job
    gate: Callable[[LaunchRecords, StopRequest], Outcome | None] | None = None

    def __call__(self) -> None:
        """Run the stage to its end.

        Raises:
            StageFailed: it did not complete; submitit and the cluster record a failed job.
        """
        records = LaunchRecords(self.launch_dir)
        stop = StopRequest()
        parent_pid = os.getppid()
        signal_on_parent_death(signal.SIGTERM, parent_pid)
        guard.adopt_orphans()  # what a guard that was itself killed leaves behind
        if cancel_requested(records, self.job.stage):
            stop.request()  # its signal came before there was anybody to hear it
        outcome, exit_code = self._run(records, stop)
        guard.kill_descendants()
        if outcome.state == CANCELLED and os.getppid() != parent_pid:
            outcome = Outcome(FAILED, "the process that holds its job was killed")
        records.append(
            self.job.stage,
            "ended",
            state=outcome.state,
            reason=outcome.reason,
            exit_code=exit_code,
        )
        if outcome.state != DONE:
            raise StageFailed(f"{self.job.stage} {outcome.state}: {outcome.reason}")

    def _run(self, records: LaunchRecords, stop: StopRequest) -> tuple[Outcome, int | None]:
        if self.gate is not None:
            records.append(self.job.stage, "waiting", upstream=self.job.after)
            closed = self.gate(records, stop)
            if closed is not None:
                return closed, None
        if stop.requested:
            return Outcome(CANCELLED, "cancelled before it started"), None
        try:
            output = open_output(self.job.output)
        except OSError as error:
            return Outcome(FAILED, f"cannot write {self.job.output}: {error.strerror}"), None
        inode = os.fstat(output.fileno()).st_ino
        with output:
            records.append(
                self.job.stage,
                "started",
                host=os.uname().nodename,
                pid=os.getpid(),
                output_inode=inode,
            )
            environment = stage_environment(os.environ, self.job, self.launch_dir)
            try:
                process = subprocess.Popen(
                    self.job.host_command,
                    cwd=self.job.working_dir,
                    env={**environment, OUTPUT_INODE: str(inode)},
                    stdin=subprocess.PIPE,  # its end tells the guard that this process is gone
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                command = self.job.host_command[0]
                return Outcome(FAILED, f"cannot start {command}: {error.strerror}"), None
            with process:
                stop.pass_on_to(process)
                exit_code = _as_shell(process.wait())
        outcome = _outcome(exit_code, cancelled=stop.requested)
        with suppress(OSError):  # the stage's own ending matters more
            close_metadata(
                self.job.output,
                inode,
                state=_METADATA_STATES[outcome.state],
                exit_code=exit_code,
                reason=outcome.reason,
            )
        return outcome, exit_code


def stage_environment(inherited: Mapping[str, str], job: Job, launch_dir: Path) -> dict[str, str]:
    """Return the environment of the stage: the job's without submitit's own, and its additions."""
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_SUBMITIT_PREFIX) or name == _KEPT
    }
    return {**kept, **job.environment, "LAUNCHER_LAUNCH_ID": launch_dir.name}


def _outcome(exit_code: int, *, cancelled: bool) -> Outcome:
    if exit_code == 0:
        return Outcome(DONE, "")
    if cancelled:
        return Outcome(CANCELLED, f"cancelled ({exit_reason(exit_code)})")
    return Outcome(FAILED, exit_reason(exit_code))


def _as_shell(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode
