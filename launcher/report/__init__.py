"""The report of a launch: one HTML file that needs nothing else, neither a network nor scripts.

Data flows one way: ``data.py`` collects what there is, ``curves.py`` reads what a training wrote,
``timeline.py``, ``charts.py`` and ``tables.py`` draw it, ``page.py`` puts it together.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import RecordError
from launcher.printable import printable

if TYPE_CHECKING:
    from launcher.records import LaunchRecords

FILE_NAME = "report.html"
_SHOWN = 200


def report(records: LaunchRecords, *, output: Path | None = None) -> Path:
    """Write the report of a launch as it stands now, and return its file.

    The launch's cluster is asked for what is not on record; where it does not answer, the report
    says so.

    Args:
        records: of the launch.
        output: the file; ``report.html`` in the launch directory when None. Returned as given.

    Raises:
        RecordError: the launch cannot be read, or the file not written.
    """
    from launcher.launches.reach import look
    from launcher.report.data import Report
    from launcher.report.page import page

    asked = records.directory / FILE_NAME if output is None else output
    try:
        output = asked.resolve()
        is_taken = output.exists() and not output.is_file()  # a device of that name would be gone
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RecordError(
            f"cannot write {printable(str(asked))[:_SHOWN]}: {why}. Choose another file with "
            "--output FILE."
        ) from error
    if is_taken:
        raise RecordError(f"{asked} is no regular file. Choose another with --output FILE.")
    text = page(Report.of(records, look(records), output.parent.absolute()))
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        temporary.touch(mode=0o600)  # it shows commands and settings, as the launch directory does
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.replace(output)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RecordError(
            f"cannot write {asked}: {error.strerror}. Choose another file with --output FILE."
        ) from error
    return asked
