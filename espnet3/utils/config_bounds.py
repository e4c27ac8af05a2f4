"""Checking a config's values against a table: intervals of numbers, and lists of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espnet3.utils.errors import ConfigError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig


def check_bounds(config: DictConfig, bounds: Mapping[str, str], *, name: str) -> None:
    """Check that numbers lie in their intervals.

    Args:
        config: all keys of ``bounds`` are there.
        bounds: for each dotted key an interval such as ``[0, 1)`` or ``(0, inf)``: a square
            bracket includes its end. Of a list, each element counts.
        name: how the config is called in messages.

    Raises:
        ConfigError: naming the key, its value and what is allowed; NaN lies nowhere.
    """
    from omegaconf import ListConfig, OmegaConf

    for key, interval in bounds.items():
        value = OmegaConf.select(config, key)
        several = isinstance(value, ListConfig)
        if not all(_lies_in(interval, each) for each in (value if several else [value])):
            subject = "each of them" if several else "it"
            raise ConfigError(f"{name}: '{key}' is {value}; {subject} must be {_words(interval)}.")


def check_choices(config: DictConfig, choices: Mapping[str, Sequence[Any]], *, name: str) -> None:
    """Check that values are among those that their keys may hold.

    Raises:
        ConfigError: naming the key, its value and the choices.
    """
    from omegaconf import OmegaConf

    for key, allowed in choices.items():
        value = OmegaConf.select(config, key)
        if value not in allowed:
            known = [str(choice) for choice in allowed]
            raise ConfigError(
                f"{name}: '{key}' is {value!r}; it may be one of: {', '.join(known)}."
                f"{nearest(str(value), known)}"
            )


def _ends(interval: str) -> tuple[str, str]:
    low, high = interval[1:-1].split(", ")
    return low, high


def _lies_in(interval: str, value: float) -> bool:
    low, high = map(float, _ends(interval))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def _words(interval: str) -> str:
    low, high = _ends(interval)
    words = f"at least {low}" if interval[0] == "[" else f"above {low}"
    if high == "inf":
        return words
    return f"{words} and {'at most' if interval[-1] == ']' else 'below'} {high}"
