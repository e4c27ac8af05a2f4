"""How a launch looks in a terminal, and in a file or a CI log."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import status as states
from launcher.output import failure_lines, last_line
from launcher.results import figure_lines, read_results
from launcher.status import JobStatus

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

STYLES = {
    states.PENDING: "dim",
    states.RUNNING: "cyan",
    states.DONE: "green",
    states.FAILED: "bold red",
    states.CANCELLED: "yellow",
    states.SKIPPED: "yellow",
}


@dataclass(frozen=True)
class Row:
    """A job as it is shown: its state and its files."""

    status: JobStatus
    output: Path
    log: Path
    metadata: Path

    @classmethod
    def of(cls, status: JobStatus, job_record: dict[str, Any]) -> Row:
        """Join a state with what ``launch.json`` says of the job."""
        files = {name: Path(job_record[name]) for name in ("output", "log", "metadata")}
        return cls(status=status, **files)

    @property
    def elapsed_s(self) -> float | None:
        """Seconds that the stage ran, or has run until now."""
        if self.status.started is None:
            return None
        return (self.status.ended or time.time()) - self.status.started

    @property
    def shown_log(self) -> str:
        """The file to look into: the stage's log, or the raw output where there is none."""
        if self.status.started is None:
            return "–"
        written = self.log.exists() and self.log.stat().st_mtime >= self.status.started
        return short_path(self.log if written else self.output)


def live_table(rows: Sequence[Row], *, width: int) -> Table:
    """Return the table that is redrawn while a launch runs."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, width=width, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("last line of its log", ratio=1, no_wrap=True, overflow="ellipsis")
    for row in rows:
        state = row.status.state
        said = last_line(row.output) if state == states.RUNNING else row.status.reason
        table.add_row(
            row.status.stage,
            f"[{STYLES[state]}]{state}[/]",
            duration(row.elapsed_s),
            f"[dim]{escape(said)}[/]",
        )
    return table


def final_table(rows: Sequence[Row], *, width: int) -> Text:
    """Return the table of all stages: state, time, log; no path is broken into lines."""
    from rich.text import Text

    name_width = max(len(row.status.stage) for row in rows)
    head = f"{'stage':{name_width}}  {'state':9}  {'time':>8}  "
    longest = max(len(row.shown_log) for row in rows)
    fits = len(head) + longest <= width
    text = Text(f"{head}{'log' if fits else ''}".rstrip() + "\n", style="bold")
    for row in rows:
        state = row.status.state
        text.append(f"{row.status.stage:{name_width}}  ", style="not bold")
        text.append(f"{state:9}", style=f"not bold {STYLES[state].replace('bold ', '')}")
        text.append(f"  {duration(row.elapsed_s):>8}", style="not bold")
        where = row.shown_log if row.status.started is not None else row.status.reason
        text.append(f"{'  ' if fits else chr(10) + '    '}{where}\n", style="not bold")
    return text


def result_lines(rows: Sequence[Row], *, width: int) -> list[str]:
    """Return what the stages report, a stage's name before its first line."""
    import textwrap

    name_width = max(len(row.status.stage) for row in rows)
    lines = []
    for row in rows:
        if row.status.state != states.DONE or row.status.started is None:
            continue
        results = read_results(row.metadata, not_before=row.status.started)
        label = row.status.stage
        for line in figure_lines(results):
            # No-break spaces, while it is wrapped, hold the words of one figure together.
            unbroken = line.replace(" ", "\xa0").replace(",\xa0", ", ")
            for part in textwrap.wrap(unbroken, max(width - name_width - 2, 20)):
                lines.append(f"{label:{name_width}}  {part}".replace("\xa0", " "))
                label = ""
    return lines


def failure_report(row: Row) -> list[str]:
    """Return why a stage failed: one line of ours, then the last lines of its output."""
    lines = [f"{row.status.stage} failed: {row.status.reason}"]
    if row.status.started is not None:
        lines += [f"  │ {line}" for line in failure_lines(row.output)]
        lines.append(f"  all of its output: {short_path(row.output)}")
    return lines


def duration(seconds: float | None) -> str:
    """Put seconds into what is read at a glance: ``0.4 s``, ``42 s``, ``3:07``, ``1:02:03``."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_path(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except FileNotFoundError:  # the working directory is gone
        return str(path)
