"""A job as it is shown, and the table that is redrawn while a launch runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import status as states
from launcher.job.stage_files import locate_output
from launcher.output import last_line
from launcher.printable import shown_path
from launcher.results import metadata_and_damage
from launcher.status import JobStatus, chain_status

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords

# Shown for a stage that is done since what it would have made was there and still holds.
KEPT = "kept"
STYLES = {
    states.PENDING: "dim",
    states.RUNNING: "cyan",
    states.DONE: "green",
    KEPT: "green",
    states.FAILED: "bold red",
    states.CANCELLED: "yellow",
    states.SKIPPED: "yellow",
}


@dataclass(frozen=True)
class Row:
    """A job as it is shown: its state and its files.

    ``job_log`` is what the job process said, where that was kept.
    """

    status: JobStatus
    output: Path
    log: Path
    metadata: Path
    job_log: Path | None = None

    @classmethod
    def of(
        cls, status: JobStatus, job_record: dict[str, Any], launch_dir: Path | None = None
    ) -> Row:
        """Join a state with the files of its run: beside its output, whatever that is called."""
        job_log = launch_dir and launch_dir / "submitit" / f"{status.job_id}_0_log.out"
        files = {name: Path(job_record[name]) for name in ("output", "log", "metadata")}
        if status.output_inode is not None:
            found = locate_output(files["output"], status.output_inode)
            if found is not None:
                stem = files["output"].stem
                files = {
                    name: path.with_name(found.stem + path.name.removeprefix(stem))
                    for name, path in files.items()
                }
        return cls(
            status=status, job_log=job_log if job_log and job_log.exists() else None, **files
        )

    @property
    def elapsed_s(self) -> float | None:
        """Seconds that the stage ran, or has run until now: no more than since its submission."""
        if self.status.started is None:
            return None
        now = time.time()
        ended = self.status.ended if self.status.has_ended else now
        if ended is None:  # of a job that vanished, nobody knows when
            return None
        elapsed_s = ended - self.status.started
        if self.status.submitted is not None:  # the node's clock may be behind, or ahead
            elapsed_s = min(elapsed_s, now - self.status.submitted)
        return max(elapsed_s, 0.0)

    @property
    def shown_state(self) -> str:
        """The state; of a stage that found its work done, that it was kept."""
        is_kept = self.status.carried_from is not None or self.recorded.get("kept") is True
        return KEPT if is_kept and self.status.state == states.DONE else self.status.state

    @property
    def shown_log(self) -> str:
        """The file to look into: the stage's log, or the raw output where there is none."""
        if self.status.started is None:
            return "–"
        # An earlier run's log was put aside, together with its output, when this one began.
        return short_path(self.log if self.log.exists() else self.output)

    @property
    def results(self) -> dict[str, Any]:
        """The figures that the stage reports; none before it is done."""
        return (self.recorded.get("results") or {}) if self.status.state == states.DONE else {}

    @property
    def message(self) -> str:
        """What the stage said when it ended early: why, and what it saved."""
        return str((self.recorded.get("exit") or {}).get("message") or "")

    @property
    def recorded(self) -> dict[str, Any]:
        """The stage's metadata; empty when this run has left none."""
        return self._metadata[0]

    @property
    def damage(self) -> list[str]:
        """What is damaged in the stage's metadata."""
        return self._metadata[1]

    @cached_property
    def _metadata(self) -> tuple[dict[str, Any], list[str]]:
        if self.status.started is None:
            return {}, []
        return metadata_and_damage(self.metadata, output_inode=self.status.output_inode)


def launch_rows(records: LaunchRecords, cluster: Cluster | None = None) -> list[Row]:
    """Return the jobs of a launch, in order; the cluster is asked for what is not on record."""
    jobs = records.read_launch()["jobs"]
    chain = chain_status(records, cluster)
    pairs = zip(chain, jobs, strict=True)
    return [Row.of(status, job, records.directory) for status, job in pairs]


def live_table(rows: Sequence[Row], *, width: int) -> Table:
    """Return the table that is redrawn while a launch runs."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, width=width, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("last line of its log", ratio=1, no_wrap=True, overflow="ellipsis")
    for row in rows:
        state = row.status.state
        said = last_line(row.output) if state == states.RUNNING else row.status.reason
        table.add_row(
            escape(row.status.stage),
            f"[{STYLES[row.shown_state]}]{row.shown_state}[/]",
            duration(row.elapsed_s),
            f"[dim]{escape(said)}[/]",
        )
    return table


def duration(seconds: float | None) -> str:
    """Put seconds into what is read at a glance: ``0.4 s``, ``42 s``, ``3:07``, ``1:02:03``."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_path(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        is_below = path.is_relative_to(Path.cwd())
    except FileNotFoundError:  # the working directory is gone
        is_below = False
    return shown_path(os.path.relpath(path) if is_below else str(path))
