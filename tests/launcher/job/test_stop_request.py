"""The wish to stop: who hears of it, what is said, and what is left as it was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from launcher.job.stop_request import CANCELLED, StopRequest


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return the two ends of a pipe that is not waited on."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for end in (reading, writing):
        os.close(end)


class End:
    """A channel."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        if self.descriptor == -2:
            raise ValueError("I/O operation on closed file")
        return self.descriptor


def told(reading: int) -> list[int]:
    try:
        return list(os.read(reading, 100))
    except BlockingIOError:
        return []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_told_as_sigterm(pipe: tuple[int, int], signum: signal.Signals) -> None:
    with StopRequest() as stop:
        stop.pass_on_to(End(pipe[1]))
        assert not stop.requested
        os.kill(os.getpid(), signum)
        assert (stop.requested, stop.why) == (True, CANCELLED)
    assert told(pipe[0]) == [signal.SIGTERM]


def test_a_stop_before_there_is_anybody_to_tell_is_not_lost(pipe: tuple[int, int]) -> None:
    with StopRequest() as stop:
        stop.request("out of time")
        assert told(pipe[0]) == []
        stop.pass_on_to(End(pipe[1]))
        assert told(pipe[0]) == [signal.SIGTERM]
        stop.request()
        assert stop.why == "out of time", "the first reason stands"


@pytest.mark.parametrize("closed", [-1, -2])
def test_a_stage_that_has_just_ended_is_no_error(closed: int) -> None:
    with StopRequest() as stop:
        stop.pass_on_to(End(closed))
        stop.request()


def test_a_warning_stops_nothing(pipe: tuple[int, int]) -> None:
    with StopRequest() as stop:
        stop.pass_on_to(End(pipe[1]))
        stop.warn_on(signal.SIGUSR2, "warned")
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (stop.requested, stop.why, stop.warned) == (False, "", "warned")
    assert told(pipe[0]) == [signal.SIGUSR2]


def test_handlers_are_put_back() -> None:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
    before = [signal.getsignal(signum) for signum in watched]
    for in_foreground in (False, True):
        with StopRequest(in_foreground=in_foreground) as stop:
            stop.warn_on(signal.SIGUSR2, "warned")
            stop.warn_on(signal.SIGUSR2, "warned again")
            assert signal.getsignal(signal.SIGTERM) != before[0]
        assert [signal.getsignal(signum) for signum in watched] == before


def test_time_runs_out(pipe: tuple[int, int]) -> None:
    with StopRequest() as stop:
        stop.pass_on_to(End(pipe[1]))
        stop.request_after(0.01, "out of time")
        for clock in clocks():
            clock.join(10)
        assert (stop.requested, stop.why) == (True, "out of time")
    assert told(pipe[0]) == [signal.SIGTERM]


def test_no_clock_outlives_its_stage() -> None:
    with StopRequest() as stop:
        stop.request_after(3600, "out of time")
        (clock,) = clocks()
    clock.join(10)
    assert not clock.is_alive()


def test_who_has_less_patience_than_the_guard_says_so(pipe: tuple[int, int]) -> None:
    with StopRequest() as stop:
        stop.kill_after_s = 0.01
        stop.pass_on_to(End(pipe[1]))
        stop.request()
        stop.request()
        for clock in clocks():
            clock.join(10)
    assert told(pipe[0]) == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]


def clocks() -> list[threading.Timer]:
    return [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


@pytest.fixture
def handled() -> Iterator[Callable[[int], list[int]]]:
    """Return a function that sets a handler of one's own, and returns the list that it fills."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGHUP)}

    def handle(signum: int) -> list[int]:
        heard: list[int] = []
        signal.signal(signum, lambda number, _frame: heard.append(number))
        return heard

    yield handle
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_at_the_terminal_ctrl_c_is_passed_on_as_what_it_is(
    pipe: tuple[int, int], handled: Callable[[int], list[int]]
) -> None:
    heard = handled(signal.SIGINT)
    with StopRequest(in_foreground=True) as stop:
        stop.pass_on_to(End(pipe[1]))
        os.kill(os.getpid(), signal.SIGINT)
    assert told(pipe[0]) == [signal.SIGINT]
    assert heard == [signal.SIGINT], "who counts Ctrl-C hears it as well"


def test_a_closed_terminal_is_a_wish_to_stop(handled: Callable[[int], list[int]]) -> None:
    heard = handled(signal.SIGHUP)
    with StopRequest(in_foreground=True) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested
    assert heard == [signal.SIGHUP]


def test_nohup_stays(handled: Callable[[int], list[int]]) -> None:
    handled(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest(in_foreground=True) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested


@pytest.mark.parametrize("is_early", [True, False])
def test_force_tells_sigkill_and_then_kills_who_does_not_obey(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    monkeypatch.setattr("launcher.job.stop_request._KILLING_S", 0.01)
    killed = threading.Event()
    with StopRequest() as stop:
        if is_early:
            stop.force()
        stop.pass_on_to(End(pipe[1]), killed.set)
        if not is_early:
            assert not killed.wait(0.05)
            stop.force()
        assert told(pipe[0]) == [signal.SIGKILL]
        assert stop.why == CANCELLED
        assert killed.wait(20)
