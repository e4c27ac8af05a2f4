"""What a report shows beyond a launch's view: its stages over time, the curves, and who it was."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import status as states
from launcher.launches import command_on
from launcher.records import LaunchRecords
from launcher.report.curves import Curves, read_curves
from launcher.view import LaunchView, StageView

# Of a stage that is not at work: it waits for the one before, or for its turn in the queue.
WAITS, QUEUED, REQUEUED = "waits", "queued", "requeued"


@dataclass(frozen=True)
class Span:
    """What a stage did for some time. Times are seconds since the epoch.

    Attributes:
        kind: ``waits``, ``queued``, ``requeued`` (it ran, and was put back), or the state that it
            ran into.
        node: where it ran.
        reason: for which it ended.
    """

    kind: str
    start: float
    end: float
    node: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All that a report is made of.

    Attributes:
        view: the launch.
        spans: of each of its stages.
        curves: of what the launch has trained.
        owner: name of the user whose launch it is.
        now: when it was looked at, in seconds since the epoch.
        directory: folder of the report, from which it links to other files.
    """

    view: LaunchView
    spans: Sequence[Sequence[Span]]
    curves: Sequence[Curves]
    owner: str
    now: float
    directory: Path

    @classmethod
    def of(cls, records: LaunchRecords, view: LaunchView, directory: Path) -> Report:
        """Collect what there is of a launch."""
        now = time.time()
        ends = {stage.status.stage: stage.status.ended for stage in view.stages}
        spans = [
            stage_spans(stage, records.events(stage.status.stage), ends.get(stage.after or ""), now)
            for stage in view.stages
        ]
        folders = dict.fromkeys(stage.row.log.parent for stage in view.stages)
        return cls(view, spans, read_curves(list(folders)), _owner(records), now, directory)

    @property
    def span_s(self) -> tuple[float, float]:
        """When the launch began, and when it ended or, while it has not, was looked at."""
        spans = [span for stage in self.spans for span in stage]
        created = self.view.record.get("created")
        begins = [created] if created is not None else []
        begins += [span.start for span in spans]
        start = min(begins, default=self.now)
        return start, max((span.end for span in spans), default=start)

    def link(self, path: Path) -> str:
        """Return a file's address, relative to the report."""
        from urllib.parse import quote

        return quote(os.path.relpath(path, self.directory).encode(errors="surrogateescape"))

    def command(self, name: str) -> str:
        """Return the command that does something with this launch."""
        return command_on(name, LaunchRecords(self.view.directory))


def stage_spans(
    stage: StageView,
    events: Sequence[Mapping[str, Any]],
    upstream_end: float | None,
    now: float,
) -> list[Span]:
    """Return what a stage did over time, each of its attempts on its own.

    Args:
        stage: the stage.
        events: of its journal.
        upstream_end: when the stage before it ended; None when there is none, or it has not.
        now: the end of what has not ended.
    """
    status, spans = stage.status, list[Span]()
    free, running, node = stage.submitted, None, None
    for event in events:
        if event["event"] == "started":
            if free is not None:
                spans += _waiting(free, event["time"], upstream_end)
            free, running, node = None, event["time"], event.get("host")
        elif event["event"] == "requeued" and running is not None:
            spans.append(Span(REQUEUED, running, event["time"], node, str(event["reason"])))
            free, running = event["time"], None
    end = status.ended if status.ended is not None else now
    if running is not None:
        if status.ended is None and status.has_ended:  # it vanished; nobody knows when
            end = running
        spans.append(Span(stage.row.shown_state, running, max(end, running), node, status.reason))
    elif free is not None and status.state == states.PENDING:
        still_waits = stage.after is not None and upstream_end is None
        spans += [Span(WAITS, free, now)] if still_waits else _waiting(free, now, upstream_end)
    return spans


def _waiting(start: float, end: float, upstream_end: float | None) -> list[Span]:
    """Part the time before a start: as long as the stage before ran, there was no place to take."""
    turn = min(max(upstream_end if upstream_end is not None else start, start), end)
    parts = [Span(WAITS, start, turn), Span(QUEUED, turn, end)]
    return [span for span in parts if span.end > span.start]


def _owner(records: LaunchRecords) -> str:
    try:
        return records.directory.owner()
    except (KeyError, OSError):
        return ""
