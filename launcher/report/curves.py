"""Curves of a training, from the CSV files that it writes as it goes.

A file is one if it is called ``metrics.csv`` or ``curves.csv``, lies in the log folder of a stage
or up to two folders below it, and has a column ``step``. Every other column of numbers is a curve;
a cell that is empty is no point. Lightning's ``CSVLogger`` writes such files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.results import is_error_rate

NAMES = ("metrics.csv", "curves.csv")
_STEP = "step"
_NOT_CURVES = frozenset({_STEP, "epoch", "time", "created_at"})
# What is beyond has overflown or vanished: a scale for it would show nothing else.
_MOST, _LEAST = 1e200, 1e-200
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Curve:
    """One column: its points, in the order of their steps."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curves:
    """What is drawn in one chart.

    Attributes:
        title: what all of them are.
        curves: in the order of their columns.
        files: that they are from.
        is_percent: whether the values are percentages.
    """

    title: str
    curves: tuple[Curve, ...]
    files: tuple[Path, ...]
    is_percent: bool = False


def read_curves(folders: Sequence[Path]) -> list[Curves]:
    """Return the charts of all curves below some log folders: losses, error rates, the rest.

    A training that was resumed writes a further file: the points of several files of one experiment
    are put together. Of a step that two of them have, that of the later one stands.
    """
    charts: list[Curves] = []
    for files in _families(_find(folders)):
        points: dict[str, dict[float, float]] = {}
        for file in files:
            for name, step, value in _read(file):
                points.setdefault(name, {})[step] = value
        curves = [
            Curve(name, tuple(sorted(found.items())))
            for name, found in points.items()
            if len(found) > 1
        ]
        charts += _charts(curves, files)
    return charts


def _find(folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for folder in folders:
        for depth in ("", "*/", "*/*/"):
            for name in NAMES:
                with suppress(OSError):
                    found |= dict.fromkeys(sorted(folder.glob(f"{depth}{name}")))
    return [file for file in found if file.is_file()]


def _families(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Put files side by side that only differ in the name of their own folder."""
    families: dict[Path, list[Path]] = {}
    for file in files:
        families.setdefault(file.parent.parent, []).append(file)
    with suppress(OSError):
        for family in families.values():
            family.sort(key=lambda file: file.stat().st_mtime)
    return [tuple(family) for family in families.values()]


def _read(file: Path) -> Iterable[tuple[str, float, float]]:
    """Yield curve, step and value of every cell that holds a number."""
    with suppress(OSError, csv.Error):
        if file.stat().st_size > _MAX_BYTES:
            return
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            for row in csv.DictReader(stream):
                step = _number(row.get(_STEP))
                if step is None:
                    continue
                for name, cell in row.items():
                    value = _number(cell)
                    if isinstance(name, str) and name not in _NOT_CURVES and value is not None:
                        yield name, step, value


def _charts(curves: Sequence[Curve], files: tuple[Path, ...]) -> list[Curves]:
    losses = tuple(curve for curve in curves if "loss" in curve.name.lower())
    errors = tuple(curve for curve in curves if is_error_rate(curve.name))
    rest = [curve for curve in curves if curve not in (*losses, *errors)]
    charts = [Curves("Loss", losses, files)] if losses else []
    charts += [Curves("Error rates", errors, files, is_percent=True)] if errors else []
    return charts + [Curves(curve.name, (curve,), files) for curve in rest]


def _number(cell: object) -> float | None:
    if not isinstance(cell, str):
        return None
    try:
        number = float(cell)
    except ValueError:
        return None
    if not abs(number) <= _MOST:  # nor is nan
        return None
    return number if abs(number) >= _LEAST else 0.0
