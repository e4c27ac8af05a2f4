"""What the launcher asks of a container runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Container(Protocol):
    """Turns a stage's command into one that a host process starts. All methods are pure."""

    @property
    def interpreter(self) -> str:
        """The Python that runs the recipe, as named where the stage runs."""

    def command(self, inner: Sequence[str], *, stop_grace_s: float) -> list[str]:
        """Return the host's command line for ``inner``.

        Its process takes SIGTERM as the wish to stop, leaves nothing behind when it ends, and
        stops by itself at the end of its standard input. Its exit status is that of ``inner``.
        """
