"""Numbers among the settings, declared with their unit and the range that they have to be in."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from launcher.errors import ConfigError

_RANGE, _UNIT = "range", "unit"


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
                f"{section}{each.name} is {value:g}; "
                f"it is to be a number from {least:g} to {most:g}{f', in {unit}' if unit else ''}"
            )
