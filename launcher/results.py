"""What stages report in ``<stage>.metadata.json``, their figures above all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.printable import harmless, printable, shown_path
from launcher.recorded.files import read_json
from launcher.recorded.kinds import fitting
from launcher.recorded.schemas import METADATA

_LONG = 1e15
# Error rates are reported in percent.
_PERCENT = ("WER", "CER", "TER", "SER", "EER", "PER")


def read_metadata(path: Path, *, output_inode: int | None) -> dict[str, Any]:
    """Return a stage's metadata; empty when it is not there, not whole, or of another run."""
    return metadata_and_damage(path, output_inode=output_inode)[0]


def metadata_and_damage(
    path: Path, *, output_inode: int | None
) -> tuple[dict[str, Any], list[str]]:
    """Return a stage's metadata without the fields in it that are damaged, and what these are.

    A run is told by its output, never by times: the clocks of two nodes differ.

    Args:
        path: the metadata file.
        output_inode: of the run's raw output; None where no record tells it.
    """
    shown = shown_path(str(path))
    try:
        metadata, unfit = fitting(read_json(path), METADATA)
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{shown} cannot be read: {error.strerror}"]
    except ValueError as error:
        return {}, [f"{shown} is damaged: {error}"]
    told = [f"{shown}: {each}" for each in unfit]
    written_by = metadata.get("job", {}).get("output_inode")
    if output_inode in (None, written_by):
        return metadata, told
    return {}, told if written_by is None else []


def figure_lines(results: Mapping[str, Any]) -> list[str]:
    """Put results into lines: single figures on one, then one per metric, over all data sets.

    ``{"test": {"WER": 3.0, "CER": 1.2}}`` gives ``["WER test 3.0 %", "CER test 1.2 %"]``.
    """
    by_metric: dict[str, list[str]] = {}
    single: list[str] = []
    for path, value in flat_figures(results):
        *where, metric = map(printable, path)
        if where:
            label = " ".join(where)
            by_metric.setdefault(metric, []).append(f"{label} {figure_text(metric, value)}")
        else:
            single.append(f"{metric} {figure_text(metric, value)}")
    lines = [", ".join(single)] if single else []
    return lines + [f"{metric} {', '.join(values)}" for metric, values in by_metric.items()]


def flat_figures(
    node: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float | str]]:
    """Yield each figure with the names that lead to it: ``("test", "WER"), 3.0``."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flat_figures(value, (*path, str(key)))
        elif isinstance(value, (int, float, str)):
            yield (*path, str(key)), value


def is_error_rate(metric: str) -> bool:
    """Tell whether a metric is an error rate, which is reported in percent."""
    return metric.upper().endswith(_PERCENT)


def figure_text(metric: str, value: float | str) -> str:
    """Write a figure as people do: error rates in percent, no more digits than say something."""
    if isinstance(value, (str, bool)):
        return harmless(str(value))
    if abs(value) >= _LONG:  # not with all its digits, of which there may be hundreds
        is_whole = isinstance(value, int)
        return f"a number of {len(str(abs(value)))} digits" if is_whole else f"{value:.4g}"
    if is_error_rate(metric):
        # One decimal, two where one would show a small rate as nothing.
        return f"{value:.1f} %" if value == 0 or value >= 1 else f"{value:.2f} %"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
