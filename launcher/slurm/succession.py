"""Two runs of one stage at once: the node of the first was lost, and lives.

A node that SLURM cannot reach any more may still run what it was given, while SLURM runs the job
again elsewhere, under the same id. Both would write into the same folders. So the run that is out
of date ends its stage as soon as it sees that a later one is on record, without letting it save,
and the later one waits for word of that. Of a node that is really gone no word comes: it waits no
longer than what a run takes that can still see the records.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from launcher.errors import RecordError
from launcher.job.stop_request import StopRequest
from launcher.records import LaunchRecords

_POLL_S = 1.0
_PATIENCE_S = 15.0
_LAST_WORDS = ("ended", "requeued")


class Succession:
    """Watches, for as long as it is entered, whether a later run of the stage has begun.

    Args:
        records: of the launch.
        stage: whose run this is.
        attempt: which one, counted from 0.
        stop: has the stage killed.
    """

    def __init__(self, records: LaunchRecords, stage: str, attempt: int, stop: StopRequest) -> None:
        self.records, self.stage, self.attempt, self.stop = records, stage, attempt, stop
        self._left = threading.Event()

    def __enter__(self) -> Succession:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def wait_for_earlier(self) -> None:
        """Wait until the run before has said its last word, or would have."""
        give_up = time.monotonic() + _PATIENCE_S
        while self._earlier_is_open() and time.monotonic() < give_up and not self.stop.requested:
            time.sleep(_POLL_S)

    def _earlier_is_open(self) -> bool:
        events = self.records.events(self.stage)
        earlier = [each for each in events if each.get("attempt", 0) < self.attempt]
        # One that never came to its stage has nothing to end.
        begun = {each.get("attempt", 0) for each in earlier if each["event"] == "started"}
        over = {each.get("attempt", 0) for each in earlier if each["event"] in _LAST_WORDS}
        return bool(begun - over)

    def _watch(self) -> None:
        while not self._left.wait(_POLL_S):
            with suppress(RecordError):  # they may be back later
                if is_succeeded(self.records, self.stage, self.attempt):
                    return self.stop.force()


def is_succeeded(records: LaunchRecords, stage: str, attempt: int) -> bool:
    """Tell whether a later run of a stage than this one has begun.

    Raises:
        RecordError: the records cannot be read.
    """
    events = records.events(stage)
    return any(each["event"] == "started" and each.get("attempt", 0) > attempt for each in events)
