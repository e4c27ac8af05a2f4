"""How the job of a stage ended."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.job.stop_request import StopRequest
from launcher.status import CANCELLED, DONE, FAILED, exit_reason


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the state to record, and the reason in words.

    Pending is one that is to run again: it was put back into its queue. ``cause`` says for what, in
    a word, where that is counted.
    """

    state: str
    reason: str
    exit_code: int | None = None
    cause: str | None = None


def outcome_of(exit_code: int, stop: StopRequest) -> Outcome:
    """Tell it from an exit status, as a shell has it, and from what the stage was asked."""
    how = exit_reason(exit_code)
    if exit_code == 0:
        return Outcome(DONE, "", 0)
    if stop.why == CANCELLED:
        return Outcome(CANCELLED, f"cancelled ({how})", exit_code)
    if stop.why:
        return Outcome(FAILED, f"{stop.why} ({how})", exit_code)
    if stop.warned:
        return Outcome(FAILED, f"{how}, after it was {stop.warned}", exit_code)
    return Outcome(FAILED, how, exit_code)
