"""The wish that a running stage should stop, or make ready to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

CANCELLED = "cancelled"
# What a guard that can hear takes to kill its stage, and a container to end after it.
_KILLING_S = 2.0


class Channel(Protocol):
    """An open pipe or socket."""

    def fileno(self) -> int:
        """Return its descriptor; raise ValueError, or return -1, once it is closed."""


class StopRequest:
    """Remembers that this job was asked to stop, and tells who stands over the stage.

    It hears signals for as long as it is entered as a context. What it tells is one byte, the
    number of a signal.

    Args:
        in_foreground: this is the process at the terminal: a closed terminal is a wish to stop as
            well, Ctrl-C reaches the stage as what it is, and who listened to the signals before
            hears them too.
        signum: what the stage is asked to stop by, unless it is by Ctrl-C.

    Attributes:
        requested: whether it was.
        why: the first reason given; ``CANCELLED`` for a signal.
        warned: that the stage was told to save its work, in words; empty when it was not.
        time_is_up: whether it was told so because its time is nearly over.
        kill_after_s: seconds from the wish to stop to SIGKILL, where whoever wishes it has less
            patience than the guard; None to leave it to that.
    """

    def __init__(
        self, *, in_foreground: bool = False, signum: signal.Signals = signal.SIGTERM
    ) -> None:
        self.requested = False
        self.why = ""
        self.warned = ""
        self.time_is_up = False
        self.kill_after_s: float | None = None
        self._in_foreground = in_foreground
        self._channel: Channel | None = None
        self._kill: Callable[[], object] | None = None
        self._is_forced = False
        self._signum = signum
        self._timer: threading.Timer | None = None
        self._last_timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        signals = [signal.SIGTERM, signal.SIGINT]
        for signum in [*signals, *([signal.SIGHUP] if self._in_foreground else [])]:
            # What the shell had ignored for a foreground (`nohup`) stays so.
            if not self._in_foreground or signal.getsignal(signum) is not signal.SIG_IGN:
                self._listen(signum, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for timer in filter(None, (self._timer, self._last_timer)):
            timer.cancel()
        for signum, before in self._before.items():
            signal.signal(signum, before if before is not None else signal.SIG_DFL)

    def request(self, why: str = CANCELLED) -> None:
        """Act as if the signal had come."""
        self.why = self.why or why
        self.requested = True
        self._tell(self._signum)
        if self.kill_after_s is not None and self._last_timer is None:
            self._last_timer = threading.Timer(self.kill_after_s, self._tell, [signal.SIGKILL])
            self._last_timer.daemon = True
            self._last_timer.start()

    def force(self) -> None:
        """Have the stage killed at once, and who stands over it as well if it does not do that."""
        self._signum, self._is_forced = signal.SIGKILL, True
        self.request()
        self._kill_soon()

    def warn(self, how: str, *, time_is_up: bool = False) -> None:
        """Let a stage that listens (to SIGUSR2) save its work; one that does not goes on."""
        self.warned = self.warned or how
        self.time_is_up |= time_is_up
        self._tell(signal.SIGUSR2)

    def warn_on(self, signum: signal.Signals, how: str) -> None:
        """Warn the stage when this process gets a signal."""
        self._listen(signum, lambda _signum, _frame: self.warn(how))

    def act_on(self, signum: signal.Signals, act: Callable[[], None]) -> None:
        """Do something when this process gets a signal, in a thread of its own."""
        self._listen(
            signum, lambda _signum, _frame: threading.Thread(target=act, daemon=True).start()
        )

    def request_after(self, seconds: float, why: str) -> None:
        """Ask for the stop when the time is over."""
        self._timer = threading.Timer(seconds, self.request, [why])
        self._timer.daemon = True
        self._timer.start()

    def pass_on_to(self, channel: Channel, kill: Callable[[], object] | None = None) -> None:
        """Name whom to tell; a stop that was asked for before there was anybody is not lost.

        Args:
            channel: to who stands over the stage.
            kill: ends that one, whether it listens or is suspended.
        """
        self._channel, self._kill = channel, kill
        if self.requested:
            self._tell(self._signum)
        if self._is_forced:
            self._kill_soon()

    def _kill_soon(self) -> None:
        if self._kill is not None:
            timer = threading.Timer(_KILLING_S, self._kill)
            timer.daemon = True
            timer.start()

    def _tell(self, signum: signal.Signals) -> None:
        if self._channel is None:
            return
        with suppress(OSError, ValueError):  # the stage has ended, or is just ending
            os.write(self._channel.fileno(), bytes([signum]))

    def _listen(
        self, signum: signal.Signals, handler: Callable[[int, FrameType | None], None]
    ) -> None:
        before = signal.signal(signum, handler)
        self._before.setdefault(signum, before)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._in_foreground and signum == signal.SIGINT:
            self._signum = signal.SIGINT
        self.request()
        before = self._before.get(signum)
        if self._in_foreground and callable(before) and before != signal.default_int_handler:
            before(signum, frame)
