"""How a stage ended: by itself, by a mistake, by a signal; for its metadata and for its log."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from espnet3.utils.errors import RecipeError
from espnet3.utils.masking import mask_text

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGINT)


class StageInterrupted(SystemExit):
    """A stage that ended early because of a signal; the process exits with 128 + its number.

    Args:
        signum: the signal.
        message: what was saved, for the log.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.message = message


def how_it_ended(error: BaseException) -> dict[str, Any]:
    """Return the metadata's ``state`` and ``exit`` for what a stage raised."""
    if isinstance(error, (StageInterrupted, KeyboardInterrupt)):
        signum = error.signum if isinstance(error, StageInterrupted) else signal.SIGINT
        message = error.message if isinstance(error, StageInterrupted) else ""
        ending = {"status": 128 + signum, "signal": signal.Signals(signum).name}
        return {"state": "interrupted", "exit": {**ending, "message": message}}
    if isinstance(error, SystemExit):
        code = error.code
        status = code if isinstance(code, int) else int(code is not None)
        message = code if isinstance(code, str) else f"sys.exit({code!r}) called in the stage"
        return {
            "state": "failed" if status else "done",
            "exit": {"status": status, "message": message},
        }
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return {
        "state": "failed",
        "exit": {"status": 1, "error": kind, "message": mask_text(str(error))},
    }


def log_ending(
    log: logging.Logger,
    stage: str,
    error: BaseException,
    metadata: Mapping[str, Any],
    elapsed_s: float,
) -> None:
    """Log the line that says how a stage ended which ``error`` left; see :func:`how_it_ended`."""
    ending = metadata["exit"]
    if metadata["state"] == "interrupted":
        saved = f": {ending['message']}" if ending["message"] else ""
        log.warning(
            "=== [INTERRUPTED] stage: %s (%.2fs) by %s%s ===",
            stage,
            elapsed_s,
            ending["signal"],
            saved,
        )
    elif metadata["state"] == "done":
        log.info("=== [DONE] stage: %s (%.2fs), left by sys.exit(0) ===", stage, elapsed_s)
    else:
        # A person's mistake is told by its message; anything else needs its traceback.
        expected = isinstance(error, (RecipeError, SystemExit))
        reason = ending["message"] if expected else f"{type(error).__name__}: {ending['message']}"
        log.error(
            "=== [FAILED] stage: %s (%.2fs) ===\n%s",
            stage,
            elapsed_s,
            reason,
            exc_info=None if expected else (type(error), error, error.__traceback__),
        )


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn signals that would end the process into :class:`StageInterrupted` in this block.

    A signal that the caller chose to ignore (``nohup``) stays ignored. Outside the main thread
    Python allows no handlers, and signals keep their ordinary effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise StageInterrupted(signum)

    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    taken = {signum: old for signum, old in before.items() if old is not signal.SIG_IGN}
    for signum in taken:
        signal.signal(signum, interrupt)
    try:
        yield
    finally:
        for signum, old in taken.items():
            signal.signal(signum, old if old is not None else signal.SIG_DFL)
