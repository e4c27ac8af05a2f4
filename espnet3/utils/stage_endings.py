"""How a stage ended: by itself, by a mistake, by a signal; for its metadata and for its log."""

from __future__ import annotations

import atexit
import logging
import os
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


class StageSignals:
    """The signals that reach a process while it runs a stage.

    The first one ends the stage. Those that follow are passed over: the stage may be saving its
    work, or its ending is being recorded, and Slurm signals every process of a job while whoever
    stands over the stage passes the signal on as well. Only Ctrl-C counts each time it is pressed.

    A signal that the caller chose to ignore (``nohup``) stays ignored. Outside the main thread
    Python allows no handlers, and signals keep their ordinary effect.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._told = False
        self._raising = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep signals from ending the process in this block.

        One that has not ended a stage by then has its ordinary effect afterwards.
        """
        global _current
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        taken = {signum: old for signum, old in before.items() if old is not signal.SIG_IGN}
        outer, _current = _current, self
        for signum in taken:
            signal.signal(signum, self._on_signal)
        try:
            yield
        finally:
            _current = outer
            for signum, old in taken.items():
                signal.signal(signum, old if old is not None else signal.SIG_DFL)
            if self._first is not None:
                if not self._told:
                    os.kill(os.getpid(), self._first)
                # Taking torch down takes a second, in which the next signal may come.
                atexit.unregister(_ignore_signals)
                atexit.register(_ignore_signals)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Turn signals into :class:`StageInterrupted` in this block; inside :meth:`held`."""
        try:
            self._raising = True
            if self._first is not None:
                self._told = True
                raise StageInterrupted(self._first)
            yield
        finally:
            self._raising = False

    def taken(self, signum: int) -> None:
        """Note that the stage itself has heard a signal, and will end by it in its own time."""
        if self._first is None:
            self._first = signum
        self._told = True

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        counts = self._first is None or signum == signal.SIGINT
        if self._first is None:
            self._first = signum
        if self._raising and counts:
            self._told = True
            raise StageInterrupted(signum)


def signal_taken(signum: int) -> None:
    """Note that the running stage, if there is one, has heard a signal and will end by it."""
    if _current is not None:
        _current.taken(signum)


_current: StageSignals | None = None


def _ignore_signals() -> None:
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
