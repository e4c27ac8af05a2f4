"""A launch that is prepared, handed over at the terminal: said, checked, submitted, followed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.printable import harmless
from launcher.typed import as_typed

if TYPE_CHECKING:
    from launcher.again.continued import Continued
    from launcher.again.request import LaunchRequest
    from launcher.prepare import Prepared
    from launcher.records import LaunchRecords


def show_plan(prepared: Prepared, *, queue: bool = False) -> int:
    """Print what would be submitted; return the exit status."""
    from launcher.dry_run import describe
    from launcher.launches.claims import refusal

    _say_notices(prepared)
    held = None if queue else refusal(prepared.launch)
    if held is not None:
        print(
            f"launcher: note: it would be refused now: {harmless(as_typed(held))}", file=sys.stderr
        )
    described = describe(prepared.launch, prepared.cluster, prepared.container)
    print(harmless(described) if sys.stdout.isatty() else described)
    return 0


def hand_over(
    prepared: Prepared,
    request: LaunchRequest,
    command_line: Sequence[str],
    *,
    follow: bool,
    continued: Continued | None = None,
    queue: bool = False,
) -> int:
    """Submit a launch and say what to type next, or stay with it; return the exit status.

    Args:
        prepared: what to submit.
        request: what was asked for.
        command_line: the words after ``python -m launcher``.
        follow: whether to stay until every stage has ended.
        continued: the launch that this one goes on from.
        queue: whether it waits for launches that write to the same folders; else it is refused.

    Raises:
        LauncherError: something that it needs is not there, or it could not be submitted.
    """
    from launcher.clusters.base import ForegroundCluster
    from launcher.display.render import short_path
    from launcher.errors import ClaimError
    from launcher.launch import where_it_runs
    from launcher.launches.claims import refusal
    from launcher.prepare import check
    from launcher.processes.interrupts import INTERRUPTED, counted_interrupts

    _say_notices(prepared)
    if not queue and (held := refusal(prepared.launch)) is not None:
        raise ClaimError(held)  # before images are fetched for it
    check(prepared)
    with counted_interrupts() as interrupts:
        records = submit_prepared(prepared, request, command_line, continued=continued, queue=queue)
        print(f"launch {short_path(records.directory)}")
        print(f"  {where_it_runs(prepared.launch)}", flush=True)
        if isinstance(prepared.cluster, ForegroundCluster):
            return prepared.cluster.attend(records, interrupts)
        if follow:
            from launcher.display.follow import follow as stay

            return stay(records, prepared.cluster, interrupts)
        _say_what_next(records)
    if interrupts.count == 0:
        return 0
    from launcher.commands.cancel import cancel_launch

    cancel_launch(records, force=False)
    return INTERRUPTED


def submit_prepared(
    prepared: Prepared,
    request: LaunchRequest,
    command_line: Sequence[str],
    *,
    continued: Continued | None = None,
    queue: bool = False,
) -> LaunchRecords:
    """Submit a launch that was checked; the arguments are those of :func:`hand_over`.

    Raises:
        LauncherError: it could not be submitted.
    """
    from launcher.submission import submit

    return submit(
        prepared.launch,
        prepared.cluster,
        command_line=[sys.executable, "-m", "launcher", *command_line],
        snapshot=prepared.snapshot,
        folders=prepared.folders,
        notices=prepared.notices,
        request=request,
        continued=continued,
        queue=queue,
    )


def _say_notices(prepared: Prepared) -> None:
    for notice in prepared.notices:
        print(f"launcher: note: {harmless(as_typed(notice))}", file=sys.stderr)


def _say_what_next(records: LaunchRecords) -> None:
    from launcher.display.render import short_path
    from launcher.launches import command_on
    from launcher.status import job_status

    record = records.read_launch()
    for each in record["queued_behind"]:
        print(f"  queued behind {short_path(Path(each))}")
    for job in record["jobs"]:
        status = job_status(records, job["stage"])
        if status.carried_from is not None:
            continue
        after = f"  after {job['after']}" if job["after"] else ""
        print(f"  {job['stage']:16} job {status.job_id}{after}")
    print("They go on by themselves. To see how they are, and to stop them:")
    for command in ("status", "cancel"):
        print(f"  {command_on(command, records)}")
