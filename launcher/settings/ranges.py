"""Numbers among the settings, declared with their unit and the range that they have to be in."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from launcher.errors import ConfigError, UsageError

_RANGE, _UNIT = "range", "unit"
_SHOWN_DIGITS = 20


def seconds(default: float, *, least: float, most: float) -> float:
    """Declare a setting in seconds; both bounds are allowed."""
    declared: float = number(default, least=least, most=most, unit="seconds")
    return declared


def number(default: Any, *, least: float, most: float, unit: str = "") -> Any:
    """Declare a setting that is a number, or null; both bounds are allowed."""
    return field(default=default, metadata={_RANGE: (least, most), _UNIT: unit})


def check_ranges(settings: Any, *, section: str = "") -> None:
    """Check the numbers of a dataclass of settings; ``section`` stands before their names.

    Raises:
        ConfigError: one is out of its range, or is not a number (nan).
    """
    for each in fields(settings):
        if _RANGE not in each.metadata:
            continue
        least, most = each.metadata[_RANGE]
        value = getattr(settings, each.name)
        if value is not None and not least <= value <= most:
            unit = each.metadata[_UNIT]
            raise ConfigError(
                f"{section}{each.name} is {_shown(value)}; "
                f"it is to be a number from {least:g} to {most:g}{f', in {unit}' if unit else ''}"
            )


def check_option(name: str, value: float, *, least: float = 0, most: float) -> None:
    """Check the number that was given with an option; both bounds are allowed.

    Raises:
        UsageError: it is out of range, or no number (nan).
    """
    if not least <= value <= most:
        raise UsageError(
            f"{name} {_shown(value)}: it is to be a number from {least:.10g} to {most:.10g}."
        )


def _shown(value: float) -> str:
    """Write a number, of which only one that is no float may be too large to be one."""
    text = str(value) if isinstance(value, int) else f"{value:g}"
    return text if len(text) <= _SHOWN_DIGITS else f"{text[:_SHOWN_DIGITS]}…"
