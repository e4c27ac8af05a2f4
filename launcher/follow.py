"""Stay with a launch: live progress until every stage has ended, then a table of results."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from launcher import render, summary
from launcher import status as states
from launcher.launch import cancel
from launcher.output import last_line
from launcher.render import Row
from launcher.status import job_status

if TYPE_CHECKING:
    from rich.console import Console

    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords

POLL_S = 0.2
# Without a terminal: seconds of silence after which a running stage gives a sign of life.
PROGRESS_EVERY_S = 30.0
INTERRUPTED = 130


def follow(records: LaunchRecords, cluster: Cluster, console: Console | None = None) -> int:
    """Show progress until every job has ended; Ctrl-C cancels the launch, a second one kills it.

    Returns:
        Exit status: 0 when every stage is done, 130 after Ctrl-C, else 1.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    watch = _Watch(records, cluster, console)
    with _counting_interrupts(watch):
        rows = _live(watch, console) if console.is_terminal else _lines(watch, console)
    console.print()
    summary.show(rows, console)
    if watch.interrupts:
        return INTERRUPTED
    return 0 if all(row.status.state == states.DONE for row in rows) else 1


class _Watch:
    """The rows of a launch as they are now; cancels it when Ctrl-C was pressed."""

    def __init__(self, records: LaunchRecords, cluster: Cluster, console: Console) -> None:
        self.records, self.cluster, self.console = records, cluster, console
        self.jobs = records.read_launch()["jobs"]
        self.interrupts = 0
        self._acted_on = 0
        self._ended: dict[str, Row] = {}

    def rows(self) -> list[Row]:
        if self.interrupts > self._acted_on:
            self._cancel(force=self._acted_on > 0)
            self._acted_on = self.interrupts
        return [self._row(job) for job in self.jobs]

    def _row(self, job: dict[str, Any]) -> Row:
        stage = job["stage"]
        if stage in self._ended:
            return self._ended[stage]
        row = Row.of(job_status(self.records, stage), job)
        if row.status.has_ended:
            self._ended[stage] = row
        return row

    def _cancel(self, *, force: bool) -> None:
        self.console.print(
            "killing the launch" if force else "cancelling the launch; Ctrl-C once more kills it"
        )
        cancel(self.records, [job["stage"] for job in self.jobs], self.cluster, force=force)


@contextmanager
def _counting_interrupts(watch: _Watch) -> Iterator[None]:
    """While it is entered, Ctrl-C is counted instead of raising KeyboardInterrupt."""

    def count(_signum: int, _frame: FrameType | None) -> None:
        watch.interrupts += 1

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as a shell sets it for a command in the background
        signal.signal(signal.SIGINT, count)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _live(watch: _Watch, console: Console) -> list[Row]:
    from rich.live import Live

    rows = watch.rows()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            rows = watch.rows()
            # Room for the ^C that a terminal echoes: on a line of its own it would shift the table.
            live.update(render.live_table(rows, width=console.width - 3), refresh=True)
            if all(row.status.has_ended for row in rows):
                return rows
            time.sleep(POLL_S)


def _lines(watch: _Watch, console: Console) -> list[Row]:
    shown: dict[str, str] = {}
    last_said_s = time.monotonic()
    while True:
        rows = watch.rows()
        for row in rows:
            stage, state = row.status.stage, row.shown_state
            if shown.get(stage, states.PENDING) != state:
                shown[stage] = state
                took = render.duration(row.elapsed_s) if row.status.has_ended else ""
                _say(console, stage, state, took or row.status.reason)
            elif state == states.RUNNING and time.monotonic() >= last_said_s + PROGRESS_EVERY_S:
                said = f"{render.duration(row.elapsed_s)}: {last_line(row.output)}"
                _say(console, stage, state, said)
            else:
                continue
            last_said_s = time.monotonic()
        if all(row.status.has_ended for row in rows):
            return rows
        time.sleep(POLL_S)


def _say(console: Console, stage: str, state: str, more: str) -> None:
    line = f"{time.strftime('%H:%M:%S')}  {stage:16} {state:9} {more}".rstrip()
    console.print(line, markup=False, soft_wrap=True)
