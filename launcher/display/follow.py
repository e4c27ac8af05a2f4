"""Stay with a launch: live progress until every stage has ended, then a table of results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from launcher import status as states
from launcher.display import render, summary
from launcher.display.render import Row, launch_rows
from launcher.output import last_line
from launcher.processes.interrupts import INTERRUPTED, Interrupts
from launcher.submission import cancel

if TYPE_CHECKING:
    from rich.console import Console

    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords
    from launcher.status import JobStatus

POLL_S = 0.2
# Without a terminal: seconds of silence after which a running stage gives a sign of life.
PROGRESS_EVERY_S = 30.0
# Without a terminal: seconds after which it is said why a job stays in the queue.
QUEUED_S = 10.0
# Seconds between two questions to the scheduler; most is told by the records.
ASK_EVERY_S = 3.0


def follow(
    records: LaunchRecords,
    cluster: Cluster,
    interrupts: Interrupts,
    console: Console | None = None,
) -> int:
    """Show progress until every job has ended; Ctrl-C cancels the launch, a second one kills it.

    Args:
        records: of the launch.
        cluster: that its jobs were submitted to.
        interrupts: Ctrl-C as it is pressed; one from before counts as well.
        console: to print to; standard output when not given.

    Returns:
        Exit status: 0 when every stage that the launch runs is done, 130 after Ctrl-C, else 1.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    watch = _Watch(records, cluster, interrupts, console)
    rows = _live(watch, console) if console.is_terminal else _lines(watch, console)
    console.print()
    summary.show(rows, console)
    if watch.interrupts_acted_on:
        return INTERRUPTED
    own = [row for row in rows if row.status.carried_from is None]
    return 0 if all(row.status.state == states.DONE for row in own) else 1


class _Watch:
    """The rows of a launch as they are now; cancels it when Ctrl-C was pressed."""

    def __init__(
        self, records: LaunchRecords, cluster: Cluster, interrupts: Interrupts, console: Console
    ) -> None:
        self.records, self.cluster, self.console = records, cluster, console
        self.jobs = records.read_launch()["jobs"]
        self.interrupts_acted_on = 0
        self._interrupts = interrupts
        self._told: dict[str, tuple[JobStatus, Row]] = {}
        self._asked = float("-inf")

    def rows(self) -> list[Row]:
        pressed = self._interrupts.count
        if pressed > self.interrupts_acted_on:
            self._cancel(force=pressed > 1)
            self.interrupts_acted_on = pressed
        rows = launch_rows(self.records)
        now = time.monotonic()
        if now >= self._asked + ASK_EVERY_S:
            self._asked = now
            told = launch_rows(self.records, self.cluster)
            pairs = zip(rows, told, strict=True)
            self._told = {row.status.stage: (row.status, said) for row, said in pairs}
        return [self._as_told(row) for row in rows]

    def _as_told(self, row: Row) -> Row:
        """Return what the scheduler said last, unless there is more on record since then."""
        before, told = self._told[row.status.stage]
        return told if row.status == before != told.status else row

    def _cancel(self, *, force: bool) -> None:
        self.console.print(
            "killing the launch" if force else "cancelling the launch; Ctrl-C once more kills it"
        )
        cancel(self.records, [job["stage"] for job in self.jobs], self.cluster, force=force)


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
    waiting: dict[str, tuple[str, float]] = {}
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
            elif state == states.PENDING and _has_waited(row, waiting):
                _say(console, stage, state, row.status.reason)
            else:
                continue
            last_said_s = time.monotonic()
        if all(row.status.has_ended for row in rows):
            return rows
        time.sleep(POLL_S)


def _has_waited(row: Row, waiting: dict[str, tuple[str, float]]) -> bool:
    """Tell, once for each reason, that a job has been in the queue for some time."""
    stage, reason = row.status.stage, row.status.reason
    if not reason or reason.startswith("waits for "):
        return False
    known, since_s = waiting.setdefault(stage, (reason, time.monotonic()))
    if known != reason:
        waiting[stage] = (reason, time.monotonic())
    elif time.monotonic() >= since_s + QUEUED_S:
        waiting[stage] = (reason, float("inf"))
        return True
    return False


def _say(console: Console, stage: str, state: str, more: str) -> None:
    line = f"{time.strftime('%H:%M:%S')}  {stage:16} {state:9} {more}".rstrip()
    console.print(line, markup=False, soft_wrap=True)
