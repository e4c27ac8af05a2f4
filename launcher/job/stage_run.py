"""A stage whose turn has come, on the node that it was given.

Its image is seen to be the one that was pinned, its container is started, and what it printed, used
and left is recorded.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from launcher.clusters.base import Allocation
from launcher.containers.base import Feature
from launcher.errors import LauncherError, RecordError
from launcher.job.lost_daemon import daemon_went_away, end_what_it_left
from launcher.job.metadata import JobMetadata
from launcher.job.out_of_memory import out_of_memory
from launcher.job.outcome import Outcome, outcome_of
from launcher.job.prepared import Prepared, prepare
from launcher.job.recording import record_outputs, record_start
from launcher.job.stage_files import OUTPUT_INODE, locate_output, open_output
from launcher.job.stop_request import StopRequest
from launcher.job.used import UseWatch
from launcher.output import last_failure
from launcher.processes import terminal
from launcher.records import LaunchRecords
from launcher.slurm.succession import Succession
from launcher.snapshot import changed_since
from launcher.status import CANCELLED, DONE, FAILED

if TYPE_CHECKING:
    from launcher.launch import Job


class StageRun:
    """A run of a stage.

    Args:
        job: the stage's.
        records: of the launch.
        stop: the wish that it should stop.
        allocation: what the job was given.
        in_foreground: whether what the stage prints is shown here as well.

    Attributes:
        used: what it used, once it has run.
    """

    def __init__(
        self,
        job: Job,
        records: LaunchRecords,
        stop: StopRequest,
        allocation: Allocation,
        *,
        in_foreground: bool,
    ) -> None:
        self.job, self.records, self.stop = job, records, stop
        self.allocation, self.in_foreground = allocation, in_foreground
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
                record_start(self.records, self.job.stage, self.allocation, output_inode=inode)
            succession.wait_for_earlier()
            directory = self.records.directory
            metadata = JobMetadata(self.output, inode, directory, self.job, self.allocation)
            outcome = settled(self._start_in(output, inode, metadata), self.allocation)
            if outcome.exit_code is None and outcome.state == FAILED:
                self._note(output, outcome.reason)
        metadata.add({"used": self.used or None})
        metadata.close(outcome.state, outcome.exit_code, outcome.reason)
        if self.allocation.rank == 0 and outcome.state == DONE:
            # One that was ended has no time for it: its end has to be recorded before its own.
            with suppress(OSError, LauncherError, KeyError):  # without, the stage is run again
                record_outputs(self.records, self.job, opened)
        return outcome

    def _start_in(self, output: IO[bytes], inode: int, metadata: JobMetadata) -> Outcome:
        metadata.add(self._changed_code(output))
        metadata.open()
        try:
            prepared = prepare(self.job, self.allocation)
            metadata.started(prepared.run, prepared.image, prepared.container)
            with prepared.places():
                return self._supervise(prepared, output, inode)
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

    def _supervise(self, prepared: Prepared, output: IO[bytes], inode: int) -> Outcome:
        run, more = prepared.run, {OUTPUT_INODE: str(inode)}
        try:
            with UseWatch(run.used, self.allocation.gpus) as watch:
                exit_code = prepared.exit_status(
                    self.stop, output, is_shown=self.in_foreground, more=more
                )
            self.used = watch.used
        except OSError as error:
            return Outcome(FAILED, f"cannot start {prepared.command[0]}: {error.strerror}")
        gone = None
        if exit_code != 0:
            gone = self._daemon_went_away(prepared, inode, exit_code)
            prepared.container.remove(run.name)
        if run.terminal and exit_code == 128 + signal.SIGINT and not self.stop.requested:
            return Outcome(CANCELLED, "interrupted by Ctrl-C", exit_code)
        outcome = outcome_of(exit_code, self.stop)
        if outcome.state == FAILED and not self.stop.why:
            reason = gone or self._out_of_memory(prepared, inode, exit_code)
            return replace(outcome, reason=reason or outcome.reason)
        return outcome

    def _daemon_went_away(self, prepared: Prepared, inode: int, exit_code: int) -> str | None:
        if self.stop.requested:
            return None
        gone = daemon_went_away(prepared.container, exit_code, self._last_lines(inode))
        if gone is not None:
            end_what_it_left(prepared.run, inode)
        return gone

    def _out_of_memory(self, prepared: Prepared, inode: int, exit_code: int) -> str | None:
        has_own_shm = Feature.SHARED_MEMORY in prepared.container.features
        return out_of_memory(
            self.job.stage,
            self._last_lines(inode),
            exit_code=exit_code,
            used=self.used,
            mem_gb=self.job.settings.resources.mem_gb,
            shm_gb=prepared.run.shm_gb if has_own_shm else None,
        )

    def _last_lines(self, inode: int) -> Sequence[str]:
        """Return the lines that say why it failed."""
        return last_failure(locate_output(self.output, inode) or self.output)
