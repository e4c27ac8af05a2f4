"""What stages print, shown while they run or afterwards, from whatever process.

A run is known by the inode of its raw output: its files get another name when the stage is run
again, and a job that was put back into the queue begins new ones.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from launcher import status as states
from launcher.display.render import Row, launch_rows, short_path
from launcher.errors import RecordError, UsageError
from launcher.output import for_terminal
from launcher.printable import shown_path
from launcher.recorded.files import open_regular

if TYPE_CHECKING:
    from launcher.records import LaunchRecords
    from launcher.view import LaunchView

_POLL_S = 0.2
# Looking into the records is cheap, asking a scheduler is not.
_ASK_EVERY_S = 5.0
_CHUNK_BYTES = 1 << 16


def stage_of_interest(records: LaunchRecords) -> str:
    """Return the stage that a person most likely means: it runs, it failed, or it ran last."""
    rows = launch_rows(records)
    for state in (states.RUNNING, states.FAILED):
        for row in rows:
            if row.status.state == state:
                return row.status.stage
    begun = [row.status.stage for row in rows if row.status.started is not None]
    return begun[-1] if begun else rows[0].status.stage


def show_stage(
    records: LaunchRecords, stage: str, *, num_lines: int | None = None, log: bool = False
) -> None:
    """Print what a stage has printed so far.

    Args:
        records: of the launch.
        stage: its name.
        num_lines: the last lines alone; None for all.
        log: the stage's own log instead of the raw output.

    Raises:
        UsageError: there is nothing yet.
    """
    row = next(row for row in launch_rows(records) if row.status.stage == stage)
    path = _file(row, log=log)
    if path is None:
        why = f": {row.status.reason}" if row.status.reason else ""
        state = f"{stage} is {row.status.state}{why}"
        if row.status.started is not None:
            gone = short_path(row.log if log else row.output)
            raise UsageError(f"{state}, and {gone} is not there: it was removed or renamed.")
        raise UsageError(f"{state}, and has printed nothing. With -f it is waited for.")
    with _open(path) as file:
        file.seek(_start(file, num_lines))
        _Printer().rest_of(file)


def say_stage(stage: str) -> None:
    """Say whose output follows, beside it: what is piped on is the stage's alone."""
    _say(f"── {stage}")


def follow_stages(
    records: LaunchRecords,
    stages: Sequence[str],
    *,
    num_lines: int | None = None,
    log: bool = False,
) -> None:
    """Print what stages print until they have ended; those that have not begun are waited for.

    Args:
        records: of the launch.
        stages: in their order; none for all, from the one that runs on.
        num_lines: of what the first one has printed before; None for all.
        log: the stages' own logs instead of the raw output.
    """
    chain = [str(job["stage"]) for job in records.read_launch()["jobs"]]
    followed = list(stages) or chain[chain.index(stage_of_interest(records)) :]
    for number, stage in enumerate(followed):
        if len(stages) != 1:
            say_stage(stage)
        _follow(_Look(records, stage), num_lines if number == 0 else None, log=log)


class _Look:
    """A stage as it is now; its cluster is asked from time to time."""

    def __init__(self, records: LaunchRecords, stage: str) -> None:
        self.records, self.stage = records, stage
        self._asked_s = float("-inf")
        self._told: tuple[Row, Row] | None = None

    def __call__(self) -> Row:
        from launcher.launches.reach import look

        recorded = self._of(launch_rows(self.records))
        if recorded.status.has_ended:
            return recorded
        if time.monotonic() >= self._asked_s + _ASK_EVERY_S:
            self._asked_s = time.monotonic()
            view: LaunchView = look(self.records)
            self._told = recorded, self._of([each.row for each in view.stages])
        before, told = self._told or (recorded, recorded)
        return told if before.status == recorded.status else recorded

    def _of(self, rows: Sequence[Row]) -> Row:
        return next(row for row in rows if row.status.stage == self.stage)


def _follow(look: _Look, num_lines: int | None, *, log: bool) -> None:
    said: str | None = None
    while True:
        row = look()
        path = _file(row, log=log)
        if path is not None and row.status.state != states.PENDING:
            row = _follow_run(look, path, row.status.output_inode, num_lines)
            num_lines = None  # of its next run, all is new
        if row.status.has_ended:
            return _say(_in_words(row))
        if row.status.reason != said:
            said = row.status.reason
            _say(_in_words(row))
        time.sleep(_POLL_S)


def _follow_run(look: _Look, path: Path, inode: int | None, num_lines: int | None) -> Row:
    """Print one run of a stage until it is over; return the stage as it then is.

    The file stays open: it may be given another name meanwhile.
    """
    printer = _Printer()
    with _open(path) as file:
        file.seek(_start(file, num_lines))
        while True:
            row = look()
            printer.rest_of(file)
            is_this_run = row.status.state == states.RUNNING and row.status.output_inode == inode
            if not is_this_run:
                return row
            time.sleep(_POLL_S)


def _in_words(row: Row) -> str:
    reason = f": {row.status.reason}" if row.status.reason else ""
    return f"{row.status.stage} is {row.shown_state}{reason}"


def _file(row: Row, *, log: bool) -> Path | None:
    """Return the file to show; of a stage that never began, what its job process said."""
    if row.status.started is None:
        return row.job_log if row.status.has_ended else None
    path = row.log if log else row.output
    return path if _is_there(path) else None


def _is_there(path: Path) -> bool:
    """Tell whether there is a file that can be read to its end; a pipe has none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _open(path: Path) -> IO[bytes]:
    try:
        return open_regular(path)
    except OSError as error:
        raise RecordError(f"cannot read {shown_path(str(path))}: {error.strerror}") from error


def _start(file: IO[bytes], num_lines: int | None) -> int:
    """Return where the last lines of a file begin."""
    if num_lines is None:
        return 0
    position = end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    wanted = num_lines + (file.read(1) == b"\n")  # after the last line break there is no line
    while position > 0 and wanted > 0:
        size = min(_CHUNK_BYTES, position)
        position -= size
        file.seek(position)
        part = file.read(size)
        if (found := part.count(b"\n")) >= wanted:
            index = len(part)
            for _ in range(wanted):
                index = part.rindex(b"\n", 0, index)
            return position + index + 1
        wanted -= found
    return position if wanted else end


class _Printer:
    """Prints as it is to a file; to a terminal, without what that would obey."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def rest_of(self, file: IO[bytes]) -> None:
        """Print what a file has from here on."""
        while part := file.read(_CHUNK_BYTES):
            if sys.stdout.isatty():
                sys.stdout.write(for_terminal(self._decode(part)))
            else:
                sys.stdout.buffer.write(part)
        sys.stdout.flush()


def _say(text: str) -> None:
    print(f"launcher: {text}", file=sys.stderr, flush=True)
