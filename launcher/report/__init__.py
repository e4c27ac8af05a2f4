"""The report of a launch: one HTML file that needs nothing else, neither a network nor scripts.

Data flows one way: ``data.py`` collects what there is, ``curves.py`` reads what a training wrote,
``timeline.py``, ``charts.py`` and ``tables.py`` draw it, ``page.py`` puts it together.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import RecordError

if TYPE_CHECKING:
    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords

FILE_NAME = "report.html"


def write_report(
    records: LaunchRecords,
    cluster: Cluster | None = None,
    *,
    output: Path | None = None,
    unasked: str = "",
) -> Path:
    """Write the report of a launch as it stands now, and return its file.

    Args:
        records: of the launch.
        cluster: asked for what is not on record; None to ask nobody.
        output: the file; ``report.html`` in the launch directory when None.
        unasked: why nobody is asked, for the report to say.

    Raises:
        RecordError: the launch cannot be read, or the file not written.
    """
    from launcher.report.data import Report
    from launcher.report.page import page
    from launcher.view import LaunchView

    output = records.directory / FILE_NAME if output is None else output
    view = LaunchView.of(records, cluster, unasked=unasked)
    text = page(Report.of(records, view, output.parent.absolute()))
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.chmod(0o600)  # it shows commands and environments, as the launch directory does
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(
            f"cannot write {output}: {error.strerror}. Choose another file with --output FILE."
        ) from error
    return output
