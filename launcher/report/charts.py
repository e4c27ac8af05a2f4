"""Curves as line charts, drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from launcher.report.curves import Curve, Curves
from launcher.report.markup import Markup, element
from launcher.report.ticks import linear_ticks, log_ticks, number_text

_WIDTH, _HEIGHT = 480, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 36
_MAX_POINTS = 600  # more than that a screen does not show
_FEW_POINTS = 24
_LOG_FROM = 20.0  # from this ratio of the largest value to the smallest
NUM_COLOURS = 6


def chart(curves: Curves) -> Markup:
    """Return one chart with its title and its legend."""
    is_log = _is_log(curves)
    title = f"{curves.title}{', %' if curves.is_percent else ', log scale' if is_log else ''}"
    entries = [
        element("span", element("i", class_=f"key c{_colour(number)}"), curve.name)
        for number, curve in enumerate(curves.curves)
    ]
    caption = element("figcaption", element("b", title), *entries, class_="legend")
    return element("figure", caption, _drawing(curves, title, is_log=is_log))


def _drawing(curves: Curves, title: str, *, is_log: bool) -> Markup:
    points = [point for curve in curves.curves for point in curve.points]
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = _range(values, is_log=is_log)
    first, last = min(steps), max(steps)
    marks = log_ticks(low, high) if is_log else linear_ticks(low, high)
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def x(step: float) -> float:
        return _LEFT + (step - first) / ((last - first) or 1.0) * (right - _LEFT)

    def y(value: float) -> float:
        share = (
            (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
            if is_log
            else (value - low) / (high - low)
        )
        return floor - share * (floor - _TOP)

    parts = []
    for mark in marks:
        at = y(mark)
        parts.append(element("line", class_="grid", x1=_LEFT, x2=right, y1=at, y2=at))
        parts.append(
            element("text", number_text(mark), class_="tick of-y", x=_LEFT - 6, y=at + 3.5)
        )
    for mark in linear_ticks(first, last, 6):
        at = x(mark)
        parts.append(element("line", class_="axis", x1=at, x2=at, y1=floor, y2=floor + 4))
        parts.append(element("text", number_text(mark), class_="tick", x=at, y=floor + 16))
    parts.append(element("line", class_="axis", x1=_LEFT, x2=right, y1=floor, y2=floor))
    parts.append(element("text", "step", class_="tick", x=(_LEFT + right) / 2, y=_HEIGHT - 4))
    for number, curve in enumerate(curves.curves):
        parts += _line(curve, f"c{_colour(number)}", x, y)
    return element(
        "svg",
        element("title", title),
        *parts,
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
    )


def _line(
    curve: Curve, colour: str, x: Callable[[float], float], y: Callable[[float], float]
) -> list[Markup]:
    points = thinned(curve.points)
    places = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    parts = [element("polyline", class_=f"curve {colour}", points=places)]
    dots = points if len(points) <= _FEW_POINTS else points[-1:]
    for step, value in dots:
        told = element("title", f"{curve.name} {number_text(value)} at step {number_text(step)}")
        parts.append(
            element("circle", told, class_=f"dot {colour}", cx=x(step), cy=y(value), r=2.5)
        )
    return parts


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return no more points than can be seen; of each stretch its lowest and its highest."""
    if len(points) <= _MAX_POINTS:
        return list(points)
    stretch = math.ceil(2 * len(points) / _MAX_POINTS)
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        extremes = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _is_log(curves: Curves) -> bool:
    values = [value for curve in curves.curves for _, value in curve.points]
    return curves.title == "Loss" and min(values) > 0 and max(values) / min(values) >= _LOG_FROM


def _range(values: Sequence[float], *, is_log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if is_log:
        return low / 1.15, high * 1.15
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    if low == high:
        margin = max(0.5, 0.05 * abs(low))  # of a large number, one half is nothing
        return low - margin, high + margin
    margin = 0.05 * (high - low)
    return low if low == 0 else low - margin, high + margin


def _colour(number: int) -> int:
    return number % NUM_COLOURS
