"""What the events of a journal may hold, each by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.recorded.kinds import (
    Kind,
    integer,
    list_of,
    moment,
    name,
    one_of,
    optional,
    path,
    record,
    text,
)
from launcher.recorded.schemas import INODE, PROCESS, USED

_MAX_ATTEMPTS = 1_000_000
# As launcher.status has them, which reads records.
ENDED = ("done", "failed", "cancelled", "skipped")
_ANY_STATE = ("pending", "running", *ENDED)

_EXIT_CODE = optional(integer(-(2**31), 2**31))
_OF_ANY_EVENT: Mapping[str, Kind] = {
    "process": optional(PROCESS),
    "attempt": integer(0, _MAX_ATTEMPTS),
    "reason": text,
    "host": optional(text),
    "node": optional(text),
    "output_inode": INODE,
    "used": optional(USED),
    "launch": path,
    "pickle_sha256": optional(text),
    "cluster": optional(text),
    "cause": optional(text),
}
_OF_EVENT: Mapping[str, Mapping[str, Kind]] = {
    "submitted": {"stage": name, "job_id": name},
    "cancel_requested": {"stages": list_of(name)},
    "waiting": {"upstream": text},
    "requeued": {"reason": text},
    "rank_ended": {"rank": integer(0, 2**31), "state": one_of(_ANY_STATE)},
    "carried": {
        "launch": path,
        "state": one_of(ENDED),
        "reason": text,
        "exit_code": _EXIT_CODE,
    },
    "ended": {"state": one_of(ENDED), "reason": text, "exit_code": _EXIT_CODE},
    "resumed_by": {"launch": path},
    "reproduced_by": {"launch": path},
}
_CARRIED = {"started": optional(moment), "ended": optional(moment)}
_EVENT = record({"time": moment, "event": text})
_EVENTS = {
    event: record(needed, {**_OF_ANY_EVENT, **(_CARRIED if event == "carried" else {})})
    for event, needed in _OF_EVENT.items()
}
_OTHER_EVENT = record({}, _OF_ANY_EVENT)


def event(value: Any) -> dict[str, Any]:
    """Take a line of a journal.

    Raises:
        Unfit: it is not whole.
    """
    known = _EVENT(value)
    taken: dict[str, Any] = _EVENTS.get(known["event"], _OTHER_EVENT)(known)
    return taken
