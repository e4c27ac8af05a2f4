"""Texts of others, as people and records get them: names of files, and what stages print."""

from __future__ import annotations

import os
import re

_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(name: str) -> str:
    """Return a file's name without line breaks and broken characters: these stand as escapes."""
    try:
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        text = name
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def shown_path(path: str) -> str:
    """Return a path as it is typed, but for what a terminal would obey: that stands as escapes.

    A byte that is no text stays as it is.
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], path)


def harmless(text: str) -> str:
    """Return a text in which nothing is left that a terminal would obey.

    Tabs and line breaks stay; other control characters stand as escapes (``\\x1b``), so that a
    stage can neither clear the screen nor set the title of the window in which its end is shown.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
