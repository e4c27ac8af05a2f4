"""Stay with a launch: live progress until every stage has ended, then a table of results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from launcher import render, summary
from launcher import status as states
from launcher.interrupts import INTERRUPTED, Interrupts
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
        Exit status: 0 when every stage is done, 130 after Ctrl-C, else 1.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    watch = _Watch(records, cluster, interrupts, console)
    rows = _live(watch, console) if console.is_terminal else _lines(watch, console)
    console.print()
    summary.show(rows, console)
    if watch.interrupts_acted_on:
        return INTERRUPTED
    return 0 if all(row.status.state == states.DONE for row in rows) else 1


class _Watch:
    """The rows of a launch as they are now; cancels it when Ctrl-C was pressed."""

    def __init__(
        self, records: LaunchRecords, cluster: Cluster, interrupts: Interrupts, console: Console
    ) -> None:
        self.records, self.cluster, self.console = records, cluster, console
        self.jobs = records.read_launch()["jobs"]
        self.interrupts_acted_on = 0
        self._interrupts = interrupts
        self._ended: dict[str, Row] = {}

    def rows(self) -> list[Row]:
        pressed = self._interrupts.count
        if pressed > self.interrupts_acted_on:
            self._cancel(force=pressed > 1)
            self.interrupts_acted_on = pressed
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
