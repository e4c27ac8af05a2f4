"""Going on from a launch: what is submitted again, with the tree and the settings as they are now.

Which of its stages still hold is told in ``verdicts.py``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.again.continued import RESUMES, Continued
from launcher.again.fingerprint import (
    Basis,
    compared_configs,
)
from launcher.again.request import LaunchRequest
from launcher.again.verdicts import Verdict, judge
from launcher.display.render import short_path
from launcher.errors import LauncherError, UsageError, did_you_mean
from launcher.launch import Job
from launcher.launches import cluster_and_grace, command_on
from launcher.prepare import Prepared, prepare
from launcher.private import check_unwritten
from launcher.records import LAUNCH, LaunchRecords
from launcher.snapshot import SnapshotPlan
from launcher.snapshot.files import CodeFiles
from launcher.status import DONE, JobStatus, chain_status


@dataclass(frozen=True)
class Resumption:
    """A launch that goes on from an earlier one, ready to be submitted.

    Attributes:
        earlier: the records of that launch.
        request: what was asked for.
        prepared: the stages that run; all of them when none does.
        verdicts: of every stage, in order.
    """

    earlier: LaunchRecords
    request: LaunchRequest
    prepared: Prepared
    verdicts: tuple[Verdict, ...]

    @property
    def runs(self) -> list[str]:
        """The stages that run."""
        return [verdict.stage for verdict in self.verdicts if verdict.runs]

    @property
    def continued(self) -> Continued:
        """What the new launch takes over."""
        carried = [verdict.status for verdict in self.verdicts if not verdict.runs]
        return Continued(self.earlier, RESUMES, carried)


def plan_resume(
    earlier: LaunchRecords, *, keep: Sequence[str] = (), settings: Sequence[str] = ()
) -> Resumption:
    """Work out what a resumed launch has to run. Nothing is written or submitted.

    Args:
        earlier: the launch, which has ended.
        keep: stages that are kept whatever has changed; each has to be done.
        settings: ``key=value``, over those of that launch.

    Raises:
        UsageError: the launch has not ended, or a stage of ``keep`` is none of its, or not done.
        LauncherError: its record does not tell what was asked for, or that cannot be had any more.
    """
    chain = ended_chain(earlier)
    by_stage = {status.stage: status for status in chain}
    for stage in keep:
        _check_stage(stage, by_stage, earlier)
        if by_stage[stage].state != DONE:
            raise UsageError(
                f"--keep {stage}: it is {by_stage[stage].state}, and there is nothing to keep"
            )
    request, prepared, basis = prepare_again(earlier, settings)
    verdicts = judge(earlier, chain, prepared.launch, basis, keep=keep)
    return _resumption(earlier, request, prepared, verdicts)


def plan_rerun(
    earlier: LaunchRecords, stage: str, *, downstream: bool, settings: Sequence[str] = ()
) -> Resumption:
    """Work out a launch that runs one stage again, whether its fingerprint holds or not.

    Args:
        earlier: the launch, which has ended.
        stage: of it; those before it have to be done.
        downstream: run those after it as well.
        settings: ``key=value``, over those of that launch.

    Raises:
        UsageError: the launch has not ended, has no such stage, or one before it is not done.
        LauncherError: as :func:`plan_resume`.
    """
    chain = ended_chain(earlier)
    _check_stage(stage, {status.stage: status for status in chain}, earlier)
    place = [status.stage for status in chain].index(stage)
    undone = [status.stage for status in chain[:place] if status.state != DONE]
    if undone:
        raise UsageError(
            f"{stage} comes after {undone[-1]}, which is not done. To run what is left of the "
            f"launch: {command_on('resume', earlier)}"
        )
    request, prepared, basis = prepare_again(earlier, settings)
    judged = judge(earlier, chain, prepared.launch, basis)
    verdicts = []
    for number, status in enumerate(chain):
        runs = number == place or (downstream and number > place)
        reasons = ["asked for"] if number == place else [f"comes after {stage}"] if runs else []
        if number > place and not runs and status.state == DONE:
            reasons = [f"made from what {stage} left before"]
        changes = judged[number].changes if runs else ()
        verdicts.append(Verdict(status.stage, runs, tuple(reasons), status, changes))
    return _resumption(earlier, request, prepared, verdicts)


def explain(records: LaunchRecords) -> list[Verdict]:
    """Say of each stage of a launch whether it would be kept or run again, and why.

    The launch need not have ended.

    Raises:
        LauncherError: as :func:`plan_resume`.
    """
    cluster, _ = cluster_and_grace(records)
    _, prepared, basis = prepare_again(records)
    return judge(records, chain_status(records, cluster), prepared.launch, basis)


def ended_chain(records: LaunchRecords) -> list[JobStatus]:
    """Return how each stage of a launch ended.

    Raises:
        UsageError: one has not, or another launch that goes on from it.
    """
    check_unwritten(records.directory)
    cluster, _ = cluster_and_grace(records)
    chain = chain_status(records, cluster)
    for successor in successors(records):
        if not all(each.has_ended for each in chain_status(successor, cluster)):
            raise UsageError(
                f"launch {short_path(successor.directory)} goes on from it already, and has not "
                f"ended: {command_on('status', successor)}"
            )
    left = [f"{each.stage} is {each.state}" for each in chain if not each.has_ended]
    if left:
        raise UsageError(
            f"launch {short_path(records.directory)} has not ended: {', '.join(left)}. Wait until "
            f"it has, or end it: {command_on('cancel', records)}"
        )
    return chain


def successors(records: LaunchRecords) -> list[LaunchRecords]:
    """Return the launches that went on from a launch, as far as they are there."""
    told = [each for each in records.events(LAUNCH) if each["event"] == f"{RESUMES[:-1]}d_by"]
    found = [LaunchRecords(Path(str(each.get("launch")))) for each in told]
    return [each for each in found if (each.directory / "launch.json").is_file()]


def prepare_again(
    records: LaunchRecords, settings: Sequence[str] = ()
) -> tuple[LaunchRequest, Prepared, Basis]:
    """Prepare what a launch was asked for, with the tree and the settings as they are now.

    Args:
        records: of the launch.
        settings: ``key=value``, over those that it was asked for with.

    Raises:
        LauncherError: it cannot be had any more.
    """
    asked = LaunchRequest.recorded(records)
    request = replace(asked, settings=(*asked.settings, *settings))
    with _working_in(request.working_dir):
        prepared = prepare(
            request.options, request.settings, request.passed_on, working_dir=request.working_dir
        )
    assert isinstance(prepared.snapshot, SnapshotPlan)
    try:
        code = CodeFiles.now(prepared.snapshot)
    except OSError as error:
        raise LauncherError(f"cannot read {error.filename}: {error.strerror}") from error
    return request, prepared, Basis(code, compared_configs(prepared.launch.plan))


def _resumption(
    earlier: LaunchRecords,
    request: LaunchRequest,
    prepared: Prepared,
    verdicts: Sequence[Verdict],
) -> Resumption:
    runs = [verdict.stage for verdict in verdicts if verdict.runs]
    launch = replace(prepared.launch, jobs=rechained(prepared.launch.jobs, runs or None))
    return Resumption(earlier, request, replace(prepared, launch=launch), tuple(verdicts))


def rechained(jobs: Sequence[Job], stages: Collection[str] | None) -> tuple[Job, ...]:
    """Return the jobs of some stages, each after the one before: on what is done, none waits."""
    chosen: list[Job] = []
    for job in jobs:
        if stages is None or job.stage in stages:
            chosen.append(replace(job, after=chosen[-1].stage if chosen else None))
    return tuple(chosen)


def _check_stage(stage: str, known: Collection[str], records: LaunchRecords) -> None:
    if stage not in known:
        raise UsageError(
            f"there is no stage '{stage}' in launch {records.directory.name}."
            f"{did_you_mean(stage, known)} It has {', '.join(known)}."
        )


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Have relative paths in settings count from where they were typed."""
    before = Path.cwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise LauncherError(
            f"the launch was made in {folder}, which cannot be entered: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        os.chdir(before)
