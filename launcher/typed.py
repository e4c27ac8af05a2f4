"""How the launcher is typed here: messages say ``python -m launcher`` of this interpreter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

# Not where a command stands with its interpreter's path already.
_SAID = re.compile(r"(?<![\w/.-])python -m launcher")


def as_typed(text: str) -> str:
    """Return a message with the commands in it as they work in this shell.

    Outside of the environment, ``python`` is another one, which has no launcher.
    """
    if not _SAID.search(text) or shutil.which("python") == sys.executable:
        return text
    try:
        below = os.path.relpath(sys.executable)
    except OSError:  # the working directory is gone
        below = ".."
    python = sys.executable if below.startswith("..") else below
    return _SAID.sub(lambda _: f"{shlex.quote(python)} -m launcher", text)
