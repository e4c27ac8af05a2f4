"""What a launch has come to: the table of its stages, their figures, and why one has failed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import status as states
from launcher.display.render import KEPT, STYLES, Row, duration, short_path
from launcher.output import failure_lines, last_line
from launcher.results import figure_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def show(rows: Sequence[Row], console: Console) -> None:
    """Print all of it."""
    width = width_of(console)
    console.print(final_table(rows, width=width), end="", soft_wrap=True)
    show_more(rows, console)


def width_of(console: Console) -> int:
    """Return the columns that there are; of a file, in which nothing is to be moved, so many."""
    return console.width if console.is_terminal else 1000


def show_more(rows: Sequence[Row], console: Console) -> None:
    """Print what stands below the table: figures, notes, and why a stage has failed."""
    from rich.text import Text

    width = width_of(console)
    for lines in (result_lines(rows, width=width), note_lines(rows)):
        if lines:
            console.print()
        for line in lines:
            console.print(Text(line), soft_wrap=True)
    for row in rows:
        if row.status.state == states.FAILED:
            console.print()
            first, *rest = failure_report(row)
            console.print(Text(first, style="bold red"), soft_wrap=True)
            for line in rest:
                console.print(Text(line), soft_wrap=True)


def final_table(rows: Sequence[Row], *, width: int) -> Text:
    """Return the table of all stages: state, time, log; no path is broken into lines."""
    from rich.text import Text

    name_width = max(len(row.status.stage) for row in rows)
    head = f"{'stage':{name_width}}  {'state':9}  {'time':>8}  "
    longest = max(len(row.shown_log) for row in rows)
    fits = len(head) + longest <= width
    text = Text(f"{head}{'log' if fits else ''}".rstrip() + "\n", style="bold")
    for row in rows:
        style = STYLES[row.shown_state].replace("bold ", "")
        text.append(f"{row.status.stage:{name_width}}  ", style="not bold")
        text.append(f"{row.shown_state:9}", style=f"not bold {style}")
        text.append(f"  {duration(row.elapsed_s):>8}", style="not bold")
        where = row.shown_log if row.status.started is not None else row.status.reason
        text.append(f"{'  ' if fits else chr(10) + '    '}{where}".rstrip() + "\n", "not bold")
    return text


def result_lines(rows: Sequence[Row], *, width: int) -> list[str]:
    """Return what the stages report, a stage's name before its first line."""
    name_width = max(len(row.status.stage) for row in rows)
    lines = []
    for row in rows:
        label = row.status.stage
        for line in figure_lines(row.results):
            # No-break spaces, while it is wrapped, hold the words of one figure together.
            unbroken = line.replace(" ", "\xa0").replace(",\xa0", ", ")
            for part in textwrap.wrap(unbroken, max(width - name_width - 2, 20)):
                lines.append(f"{label:{name_width}}  {part}".replace("\xa0", " "))
                label = ""
    return lines


def note_lines(rows: Sequence[Row]) -> list[str]:
    """Return what a state alone does not tell: the work saved, the step reached."""
    lines = []
    for row in rows:
        if row.status.state == states.CANCELLED and row.message:
            lines.append(f"{row.status.stage} cancelled: {row.message}")
        elif row.status.state == states.RUNNING and (said := last_line(row.output)):
            lines.append(f"{row.status.stage} running: {said}")
    kept = [row.status for row in rows if row.shown_state == KEPT]
    if any(status.carried_from is None for status in kept):
        lines.append("kept: made by an earlier run, and all that it depends on is unchanged")
    launches = dict.fromkeys(each.carried_from for each in kept if each.carried_from is not None)
    for launch in launches:
        stages = [status.stage for status in kept if status.carried_from == launch]
        lines.append(f"kept: {', '.join(stages)}, run by launch {Path(launch).name}")
    return lines


def failure_report(row: Row) -> list[str]:
    """Return why a stage failed: one line of ours, then the last lines of its output."""
    lines = [f"{row.status.stage} failed: {row.status.reason}"]
    if row.status.started is not None:
        lines += [f"  │ {line}" for line in failure_lines(row.output)]
        lines.append(f"  all of its output: {short_path(row.output)}")
    elif row.job_log is not None:
        lines += [f"  │ {line}" for line in failure_lines(row.job_log)]
        lines.append(f"  all that its job said: {short_path(row.job_log)}")
    elif row.status.job_id is not None and row.status.process is None:
        lines.append("  its job said nothing: do the nodes have the folder of the launch?")
    return lines
