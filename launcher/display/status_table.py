"""The table of ``launcher status``: a line for each stage; a second where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from launcher.display.render import STYLES, duration

if TYPE_CHECKING:
    from rich.text import Text

    from launcher.view import LaunchView, StageView

_GAP = "  "
_INDENT = "    "
# How each resource is said, with its unit: one, several.
_SAID = {
    "nodes": ("", "{} nodes"),
    "gpus_per_node": ("1 GPU", "{} GPUs"),
    "cpus_per_task": ("1 CPU", "{} CPUs"),
    "mem_gb": ("1 GiB", "{} GiB"),
    "timeout_min": ("1 min", "{} min"),
}


def status_table(view: LaunchView, *, width: int) -> Text:
    """Return the table; columns in which nothing stands are left out, no path is broken.

    Args:
        view: the launch.
        width: columns that there are. What does not fit stands on lines of its own.
    """
    from rich.text import Text

    names = ["stage", "state", "job", "node", "queued", "ran", "asks for"]
    cells = [_cells(stage) for stage in view.stages]
    kept = [column for column in range(len(names)) if any(row[column] for row in cells)]
    widths = {
        column: max(len(names[column]), *(len(row[column]) for row in cells)) for column in kept
    }
    where = [_where(stage) for stage in view.stages]
    used = sum(widths.values()) + len(_GAP) * len(widths)
    fits = used + max(map(len, where)) <= width
    if not fits and names.index("asks for") in kept and used > width:
        kept.remove(names.index("asks for"))
        where = [
            _GAP.join(filter(None, [row[-1], each])) for row, each in zip(cells, where, strict=True)
        ]
    head = _GAP.join(_aligned(names[column], column, widths[column]) for column in kept)
    head += f"{_GAP}log" if fits else ""
    text = Text(f"{head.rstrip()}\n", style="bold")
    for stage, row, said in zip(view.stages, cells, where, strict=True):
        style = STYLES[stage.row.shown_state].replace("bold ", "")
        for column in kept:
            text.append(
                _aligned(row[column], column, widths[column]),
                f"not bold {style}" if column == 1 else "not bold",
            )
            text.append(_GAP)
        if said and fits:
            text.append(said, "not bold")
        text.rstrip()
        if said and not fits:
            text.append(f"\n{_INDENT}{said}", "not bold")
        text.append("\n")
    return text


def resources_in_words(asked: Mapping[str, Any]) -> str:
    """Return what a stage asks for: ``2 nodes, 1 GPU, 4 CPUs, 16 GiB, 60 min``."""
    said = []
    for name, (one, several) in _SAID.items():
        number = asked.get(name)
        if number:
            said.append(one if number == 1 else several.format(f"{number:g}"))
    return ", ".join(filter(None, said))


def _cells(stage: StageView) -> list[str]:
    status = stage.status
    has_begun = status.started is not None and status.carried_from is None
    waits = stage.queue_s or 0.0 if has_begun else stage.queue_s
    return [
        status.stage,
        stage.row.shown_state,
        status.job_id or "",
        stage.node or "",
        duration(waits),
        duration(stage.run_s),
        resources_in_words(stage.asked),
    ]


def _aligned(text: str, column: int, width: int) -> str:
    return f"{text:>{width}}" if column in (4, 5) else f"{text:{width}}"


def _where(stage: StageView) -> str:
    """Return the log of a stage that has begun, else why it has not; and how often it began."""
    status = stage.status
    told = stage.row.shown_log if status.started is not None else status.reason
    if status.started is None or not stage.attempt:
        return told
    return f"{told}  (run {stage.attempt + 1})"
