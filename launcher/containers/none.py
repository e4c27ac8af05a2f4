"""No container: the stage runs on the host, under a guard that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher import guard
from launcher.recipe import default_python


@dataclass
class Settings:
    """``container.*`` of the configuration.

    Attributes:
        python: the interpreter that runs the recipe; the launcher's own when not set.
    """

    name: str = "none"
    python: str | None = None


class NoContainer:
    """Runs the recipe with an interpreter of this host."""

    def __init__(self, settings: Settings) -> None:
        self.interpreter = settings.python or default_python()

    def command(self, inner: Sequence[str], *, stop_grace_s: float) -> list[str]:
        """Return the command line that starts ``inner`` under the guard."""
        return [default_python(), guard.__file__, f"{stop_grace_s:g}", *inner]


Implementation = NoContainer
