"""Where the marks of an axis stand, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * each for each in (1, 2, 5, 10, 15, 30)),
    *(3600 * each for each in (1, 2, 3, 6, 12)),
    *(86400 * each for each in (1, 2, 7, 14)),
)


def linear_ticks(low: float, high: float, num: int = 5) -> list[float]:
    """Return about ``num`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / num
    if low + raw == low or high - raw == high:  # no number lies between
        return [low, high]
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(each * magnitude for each in (1, 2, 2.5, 5, 10) if each * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten from ``low`` to ``high``, with marks between where they are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        shown = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(shown) >= 3:
            break
    return shown if len(shown) <= 7 else shown[:: math.ceil(len(shown) / 7)]


def number_text(value: float) -> str:
    """Write a number as short as it can be read: ``0.05``, ``1500``, ``2e-05``."""
    return f"{value:.6g}"


def time_ticks(start: float, end: float, num: int = 7) -> list[tuple[float, str]]:
    """Return round local times between two moments, with the day wherever a new one has begun."""
    raw = max(end - start, 1.0) / num
    step = next((each for each in _STEPS_S if each >= raw), _STEPS_S[-1])
    while (end - start) / step > 2 * num:
        step *= 2
    offset = datetime.fromtimestamp(start).astimezone().utcoffset()
    shift = offset.total_seconds() if offset else 0.0
    first = math.ceil((start + shift) / step) * step - shift
    moments = [first + number * step for number in range(int((end - first) // step) + 1)]
    return list(zip(moments, _clock_texts(moments, step), strict=True))


def _clock_texts(moments: Sequence[float], step: float) -> list[str]:
    texts: list[str] = []
    day = None
    for moment in moments:
        local = datetime.fromtimestamp(moment)
        clock = local.strftime("%H:%M:%S" if step < 60 else "%H:%M")
        date = f"{local.day} {local:%b}"
        is_new = day is not None and day != local.date()
        texts.append(date if step >= 86400 else f"{date} {clock}" if is_new else clock)
        day = local.date()
    return texts
