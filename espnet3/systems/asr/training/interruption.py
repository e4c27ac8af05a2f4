"""Signals that ask a training run to save and end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from espnet3.utils.stage_endings import signal_taken

logger = logging.getLogger(__name__)

# SIGTERM: the scheduler's or a person's kill. SIGUSR2: Slurm's warning before the time limit, as
# submitit sets it. SIGINT: Ctrl-C. SIGHUP: the terminal was closed.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


class Interruption:
    """Remembers the first signal; training asks for it where its state is whole."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def install(self) -> None:
        """Take over the signals, except those that are ignored: ``nohup`` stays in force.

        Lightning sets its own when fitting begins: call it after.
        """
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    signal.signal(signum, self._remember)

    @contextmanager
    def restored_afterwards(self) -> Iterator[None]:
        """Give the signals back to their earlier handlers at the end of the block."""
        earlier = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for signum, handler in earlier.items():
                    signal.signal(signum, handler)

    def requested(self, trainer: Any) -> bool:
        """Whether any rank has been asked to end; all ranks get the same answer."""
        if trainer.world_size == 1:
            return self.signum is not None
        asked = trainer.strategy.reduce_boolean_decision(self.signum is not None, all=False)
        if asked and self.signum is None:
            self.signum = signal.SIGTERM
        return bool(asked)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        if self.signum is None:
            self.signum = signum
            signal_taken(signum)  # where these handlers are no longer in place, it counts as well
            logger.info(
                "%s received: saving a checkpoint after this step", signal.Signals(signum).name
            )


def leave_signals_to_training(_worker_id: int) -> None:
    """Have a worker of a DataLoader live through the signals that are meant for the training.

    A scheduler signals every process of a job: without its workers, training would not come to the
    end of its step. Only a SIGTERM from the training itself ends a worker, which is how DataLoader
    and Python's exit get rid of one that hangs.
    """
    for signum in _SIGNALS:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        # Blocked, so that no handler has it: a handler is not told who sent a signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(pid: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != pid:
        pass
    os._exit(0)
