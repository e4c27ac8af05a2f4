"""What a check found: a state, what is there, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

OK, INFO, WARN, FAIL = "ok", "info", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: what was looked at.
        state: ``ok``; ``info``, which is neither good nor bad; ``warn``: launches may go wrong;
            ``fail``: what was chosen does not work.
        found: what there is.
        advice: what to do; empty when there is nothing to be done.
    """

    topic: str
    state: str
    found: str
    advice: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return the finding as JSON-able values."""
        return asdict(self)
