"""Ctrl-C while jobs are being submitted and followed: noted at once, acted upon in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # exit status, as a shell has it


class Interrupts:
    """How often Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """While it is entered, Ctrl-C is counted instead of raising KeyboardInterrupt.

    So none falls between the submission of a job and its record, or before anybody listens.
    """
    interrupts = Interrupts()

    def count(_signum: int, _frame: FrameType | None) -> None:
        interrupts.count += 1

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as a shell sets it for a command in the background
        signal.signal(signal.SIGINT, count)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
