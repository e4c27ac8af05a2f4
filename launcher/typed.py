"""How the launcher is typed here: messages say ``python -m launcher`` of this interpreter.

Where it was typed as ``make run``, they name make's variables in place of the options.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

# Not where a command stands with its interpreter's path already.
_SAID = re.compile(r"(?<![\w/.-])python -m launcher")
# What is typed: a whole command, which stays one, or an option of `run`, with its value or without.
_TYPED = re.compile(
    r"(?P<command>(?:[\w/.'-]+)?python[\w.']* -m launcher[^\n;]*)"
    r"|(?<![\w-])--(?:(?P<name>cluster|container|recipe) (?P<value>[^\s.,;:)]+)"
    r"|stages (?P<stages>\w(?:[\w …]|,(?=\w))*)|(?P<flag>queue|allow-unpinned))(?![\w=-])"
)


def as_typed(text: str) -> str:
    """Return a message with the commands and options in it as they work in this shell.

    Outside of the environment, ``python`` is another one, which has no launcher.
    """
    if _is_typed_as_make():
        text = _TYPED.sub(_of_make, text)
    if not _SAID.search(text) or shutil.which("python") == sys.executable:
        return text
    try:
        below = os.path.relpath(sys.executable)
    except OSError:  # the working directory is gone
        below = ".."
    python = sys.executable if below.startswith("..") else below
    return _SAID.sub(lambda _: f"{shlex.quote(python)} -m launcher", text)


def _is_typed_as_make() -> bool:
    """Tell whether ``make run`` started this process."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "launcher.make_run"


def _of_make(found: re.Match[str]) -> str:
    if found["command"]:
        return found[0]
    if found["name"]:
        return f"{found['name'].upper()}={found['value']}"
    if found["stages"]:
        return f'STAGES="{found["stages"].strip()}"'
    return f"ARGS=--{found['flag']}"
