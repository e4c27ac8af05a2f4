"""Names of files as people and records get them."""

from __future__ import annotations

import os


def printable(name: str) -> str:
    """Return a file's name without line breaks and broken characters: these stand as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
