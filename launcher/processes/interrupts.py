"""Ctrl-C while jobs are being submitted and followed: noted at once, acted upon in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # exit status, as a shell has it
_ENDS = (signal.SIGTERM, signal.SIGHUP)


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


@contextmanager
def orderly_end() -> Iterator[None]:
    """While it is entered, SIGTERM and SIGHUP end the process as an exception does.

    What it has made for its own use, such as temporary folders, is then removed.
    """

    def end(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    # What is ignored (nohup), or has a handler already, stays so.
    ours = [each for each in _ENDS if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
