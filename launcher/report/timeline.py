"""The chain as a timeline: a lane for each stage, drawn as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from launcher.display.render import duration
from launcher.report.data import QUEUED, REQUEUED, WAITS, Report, Span
from launcher.report.markup import Markup, element
from launcher.report.ticks import time_ticks

_WIDTH, _LANE, _BAR = 1000, 34, 18
_LEFT, _RIGHT, _TOP, _BOTTOM = 150, 16, 8, 30
_LABEL_WIDTH = 64  # that a duration needs beside or in a bar
_MAX_NAME = 22
_IN_WORDS = {
    WAITS: "waits for the stage before",
    QUEUED: "queued",
    REQUEUED: "ran, and was put back into the queue",
}


def timeline(report: Report) -> Markup:
    """Return the drawing."""
    start, end = report.span_s
    length = max(end - start, 1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / length

    def x(moment: float) -> float:
        return _LEFT + (moment - start) * scale

    height = _TOP + _LANE * len(report.spans) + _BOTTOM
    floor = height - _BOTTOM
    parts: list[Markup | None] = []
    for moment, text in time_ticks(start, start + length):
        parts.append(element("line", class_="grid", x1=x(moment), x2=x(moment), y1=_TOP, y2=floor))
        parts.append(element("text", text, class_="tick", x=x(moment), y=floor + 18))
    for number, (stage, spans) in enumerate(zip(report.view.stages, report.spans, strict=True)):
        middle = _TOP + _LANE * number + _LANE / 2
        name = stage.status.stage
        shown = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
        parts.append(element("text", shown, class_="lane", x=_LEFT - 10, y=middle + 4))
        parts += [_bar(span, x(span.start), x(span.end), middle) for span in spans]
        parts.append(_label(spans, x, middle) if spans else _never(stage.status.state, middle))
    return element(
        "svg",
        element("title", "When each stage waited, was queued, and ran"),
        *parts,
        id="timeline",
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
    )


def legend(report: Report) -> Markup:
    """Return what the colours in the drawing mean, those that are there."""
    found = dict.fromkeys(span.kind for spans in report.spans for span in spans)
    first = [kind for kind in _IN_WORDS if kind in found]
    kinds = [*first, *(kind for kind in found if kind not in first)]
    entries = [
        element("span", element("i", class_=f"key {kind}"), _IN_WORDS.get(kind, kind))
        for kind in kinds
    ]
    return element("p", *entries, class_="legend")


def _bar(span: Span, left: float, right: float, middle: float) -> Markup:
    thin = span.kind in (WAITS, QUEUED)
    height = 4 if span.kind == WAITS else 8 if thin else _BAR
    words = _IN_WORDS.get(span.kind, span.kind)
    where = f" on {span.node}" if span.node else ""
    why = f": {span.reason}" if span.reason else ""
    return element(
        "rect",
        element("title", f"{words}{where}, {duration(span.end - span.start)}{why}"),
        class_=f"bar {span.kind}",
        x=left,
        y=middle - height / 2,
        width=max(right - left, 2.0 if not thin else 0.5),
        height=height,
        rx=0 if thin else 3,
    )


def _label(spans: Sequence[Span], x: Callable[[float], float], middle: float) -> Markup | None:
    """Write how long a stage ran: behind its last bar, or where there is room."""
    last = spans[-1]
    if last.kind == WAITS:
        return None
    text, left, right = duration(last.end - last.start), x(last.start), x(last.end)
    if last.kind == QUEUED:
        text = f"queued {text}"
        return element("text", text, class_="beside before", x=right, y=middle - 7)
    if right + 6 + _LABEL_WIDTH <= _WIDTH:
        return element("text", text, class_="beside", x=right + 6, y=middle + 4)
    if right - left > _LABEL_WIDTH:
        return element("text", text, class_="inside", x=right - 8, y=middle + 4)
    return element("text", text, class_="beside before", x=left - 6, y=middle - 5)


def _never(state: str, middle: float) -> Markup:
    return element("text", state, class_="beside", x=_LEFT + 4, y=middle + 4)
