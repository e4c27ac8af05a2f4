"""What is said of a value in a record that is not what its field may hold."""

from __future__ import annotations

import math
from typing import Any

from launcher.printable import harmless

_MAX_SHOWN_BYTES = 200
_MAX_SHOWN_NUMBER = 2**64
_MISSING = "missing"


class Unfit(ValueError):
    """A value that is not what its field may hold.

    Args:
        wanted: what it is to be: ``a name``.
        found: what it is: ``a list``.
        field: where it stands: ``jobs[0].stage``; empty for the value itself.
    """

    def __init__(self, wanted: str, found: str, field: str = "") -> None:
        said = "is missing" if found == _MISSING else f"is {found}, and is to be {wanted}"
        super().__init__(f"{field or 'it'} {said}")
        self.wanted, self.found, self.field = wanted, found, field

    @classmethod
    def missing(cls, field: str) -> Unfit:
        """Return what is to be said of a field that is not there."""
        return cls("", _MISSING, field)

    def below(self, name: str) -> Unfit:
        """Return it as seen from the record in which the value stands."""
        name = name if len(name) <= _MAX_SHOWN_BYTES else f"{name[:20]}…"
        inner = self.field if self.field.startswith("[") or not self.field else f".{self.field}"
        return Unfit(self.wanted, self.found, harmless(f"{name}{inner}"))


def found_in(value: Any) -> str:
    """Say what a value is, in few words whatever its size."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        many = "" if len(value) == 1 else "s"
        return f"a text of {len(value)} character{many}" if value else "empty"
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            return "no finite number"
        return "a number of many digits" if abs(value) > _MAX_SHOWN_NUMBER else f"{value:g}"
    return "a list" if isinstance(value, list) else "a mapping"
