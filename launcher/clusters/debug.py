"""This terminal: stages run one after the other in the foreground, and ``breakpoint()`` works.

Everything else is as in any launch: container, mounts, environment, records and logs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from launcher.clusters import local
from launcher.clusters.base import Allocation, JobHandle, JobState
from launcher.errors import StageFailed
from launcher.job.outcome import Outcome
from launcher.job.stage_job import StageJob
from launcher.job.stop_request import StopRequest
from launcher.local import gpus as local_gpus
from launcher.local.turns import wait_for_turn
from launcher.processes import terminal
from launcher.processes.identity import ProcessId
from launcher.processes.interrupts import INTERRUPTED, Interrupts
from launcher.records import LaunchRecords
from launcher.status import CANCELLED, DONE, JobStatus, cancel_requested, job_status

if TYPE_CHECKING:
    from launcher.launch import Job, Launch

_AT_ONCE_S = 0.001  # the stages before have ended already
_HINT = "Ctrl-C interrupts the stage, Ctrl-\\ kills it, Ctrl-Z suspends the launcher."


@dataclass
class Settings:
    """``cluster.*`` of the configuration.

    Attributes:
        gpus: ids of the GPUs that stages may be given; None for all that nvidia-smi lists.
        gpu_locks: folder of the files by which stages hold them, the same for all who share them.
    """

    name: str = "debug"
    gpus: list[str] | None = None
    gpu_locks: str = str(local_gpus.LOCKS)


@contextmanager
def allocation(
    job: Job, records: LaunchRecords, stop: StopRequest
) -> Iterator[Allocation | Outcome]:
    """Wait for GPUs that another stage holds; give the reason where the job is not to run."""
    settings: Settings = job.settings.cluster
    closed = wait_for_turn(job, records, stop, _AT_ONCE_S)
    if closed is not None:
        yield closed
        return

    def on_wait(reason: str) -> None:
        records.append(job.stage, "waiting", upstream=reason)
        terminal.say(lambda: print(f"{job.stage} waits for {reason}"))

    with local.allocated(job, stop, settings.gpus, settings.gpu_locks, on_wait=on_wait) as granted:
        yield granted


class DebugCluster:
    """Jobs are run by the launcher itself, once all of them are on record."""

    name = "debug"
    falls_back_to_host = True
    keeps = local.LocalCluster.keeps
    preferred_containers = local.LocalCluster.preferred_containers

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._jobs: list[StageJob] = []

    def check(self, launch: Launch) -> None:
        """Refuse what this machine has not got."""
        local.check_machine(launch, self.name)

    def preview(self, launch: Launch, directory: Path) -> Mapping[str, str]:
        """Nothing but the command itself is given to anybody."""
        return {}

    def submit(self, job: Job, launch: Launch, records: LaunchRecords) -> JobHandle:
        """Put the job into the list."""
        self._jobs.append(StageJob(records.directory, job, in_foreground=True))
        return JobHandle(str(os.getpid()), ProcessId.of(os.getpid()))

    def release(self, records: LaunchRecords) -> None:
        """Jobs are run by :meth:`attend`."""

    def attend(self, records: LaunchRecords, interrupts: Interrupts) -> int:
        """Run all of the jobs here and show what has become of them; return the exit status.

        Ctrl-C and the like end the stage that runs; those after it are skipped. Between two stages
        they cancel what is left.
        """
        from rich.console import Console

        from launcher.display.render import launch_rows
        from launcher.display.summary import show

        console = Console(highlight=False)
        if any(stage.job.run.terminal for stage in self._jobs):
            terminal.say(lambda: print(_HINT))
        with _noted_signals() as noted:
            for stage in self._jobs:
                is_next = self._is_next(stage, records)
                if is_next and (noted or interrupts.count):
                    self._cancel_rest(records)
                elif is_next:
                    terminal.say(partial(console.rule, stage.job.stage))
                with suppress(StageFailed):  # it is on record
                    stage()
        rows = launch_rows(records)
        terminal.say(console.print)
        terminal.say(lambda: show(rows, console))
        statuses = [row.status for row in rows]
        typed = 128 + signal.SIGINT  # in raw mode Ctrl-C is the stage's, and no signal here
        if interrupts.count or any(
            each.state == CANCELLED and each.exit_code == typed for each in statuses
        ):
            return INTERRUPTED
        if noted:
            return 128 + noted[0]
        return 0 if all(each.state == DONE or each.carried_from for each in statuses) else 1

    def cancel(self, status: JobStatus, *, force: bool) -> None:
        """Ask the launcher that runs the job; in that launcher itself, its own signals do it."""
        if status.process is not None and status.process != ProcessId.of(os.getpid()):
            status.process.send(signal.SIGKILL if force else signal.SIGTERM)

    def states(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """There is no scheduler to ask."""
        return {}

    def _is_next(self, stage: StageJob, records: LaunchRecords) -> bool:
        """Tell whether a stage's turn has come; that of one after a failed one never does."""
        name, after = stage.job.stage, stage.job.after
        if cancel_requested(records, name):
            return False
        return after is None or job_status(records, after).state == DONE

    def _cancel_rest(self, records: LaunchRecords) -> None:
        from launcher.submission import cancel

        cancel(records, [stage.job.stage for stage in self._jobs], self)


Implementation = DebugCluster


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Note the signals that ask for an end, instead of ending without a word on record."""
    noted: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        noted.append(signum)

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(signum, note)
    try:
        yield noted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
