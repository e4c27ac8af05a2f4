"""Which stages of a launch still hold, and which would run again, each with why.

A stage that is done is kept when all that its result depends on is as it was (``fingerprint.py``),
when what it left is still there (``stage_outputs.py``), and when no stage before it runs again.
Everything is compared with the tree and the settings as they are now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.again.continued import CARRIED_CREATED, CARRIED_FROM, origin
from launcher.again.fingerprint import Basis, differences, fingerprint, is_whole
from launcher.errors import RecordError
from launcher.job.stage_outputs import Outputs, lost_outputs, read_outputs
from launcher.launch import Launch
from launcher.records import LaunchRecords
from launcher.status import DONE, FAILED, SKIPPED, JobStatus

_MOST_NAMED = 3


@dataclass(frozen=True)
class Verdict:
    """What becomes of one stage.

    Attributes:
        stage: its name.
        runs: whether it runs again; otherwise it is taken over as it ended.
        reasons: why; of one that is kept all the same, what would speak against it.
        status: how it ended.
        changes: of one that began and is not done, what has changed since it was launched.
    """

    stage: str
    runs: bool
    reasons: tuple[str, ...]
    status: JobStatus
    changes: tuple[str, ...] = ()

    @property
    def has_other_config(self) -> bool:
        """Whether the config of a stage that began and is not done is another by now."""
        return any(change.startswith("config ") for change in self.changes)


def judge(
    earlier: LaunchRecords,
    chain: Sequence[JobStatus],
    launch: Launch,
    basis: Basis,
    *,
    keep: Collection[str] = (),
) -> list[Verdict]:
    """Return a verdict of each stage.

    Args:
        earlier: the launch that ended.
        chain: how each of its stages ended.
        launch: the same stages as they would be launched now.
        basis: what their fingerprints are made of now.
        keep: stages that are kept whatever has changed.
    """
    record = earlier.read_launch()
    jobs = {job["stage"]: {**job, **origin(earlier, record, job)} for job in record["jobs"]}
    now = {job.stage: fingerprint(job, launch, basis) for job in launch.jobs}
    verdicts: list[Verdict] = []
    known: dict[str, Basis] = {}
    for number, status in enumerate(chain):
        stage, job = status.stage, jobs[status.stage]
        changes: list[str] = []
        if has_fingerprint := is_whole(job.get("fingerprint")):
            source, below = job[CARRIED_FROM], launch.recipe.code_root
            if source not in known:
                known[source] = Basis.recorded(LaunchRecords(Path(source)))
            was = known[source]
            changes = differences(job["fingerprint"], now[stage], was, basis, below=below)
        if status.state != DONE:
            has_run = status.has_ended and status.started is not None
            since = tuple(changes) if has_run else ()
            verdicts.append(Verdict(stage, True, (_why_undone(status),), status, since))
            continue
        reasons = changes if has_fingerprint else ["its launch recorded no fingerprint"]
        reasons += _lost(earlier, stage, [each.stage for each in chain[number + 1 :]])
        reasons += _upstream(verdicts, [jobs[each.stage] for each in chain[:number]], job)
        runs = bool(reasons) and stage not in keep
        verdicts.append(Verdict(stage, runs, tuple(reasons), status))
    return verdicts


def _why_undone(status: JobStatus) -> str:
    because = f": {status.reason}" if status.reason else ""
    if not status.has_ended:
        return f"{status.state}{because}"
    if status.state == FAILED:
        return f"failed{because}"
    if status.started is None or status.state == SKIPPED:
        return f"never ran{because}"
    return f"{status.state}{because}"


def _lost(records: LaunchRecords, stage: str, after: Sequence[str]) -> list[str]:
    recorded, *later = [_outputs(records, each) for each in (stage, *after)]
    if recorded is None:
        return ["outputs: what it left is not on record"]
    lost = lost_outputs(recorded, [each for each in later if each is not None])
    more = [f"outputs: {len(lost) - _MOST_NAMED} more files"] if len(lost) > _MOST_NAMED else []
    return [f"outputs: {each}" for each in lost[:_MOST_NAMED]] + more


def _outputs(records: LaunchRecords, stage: str) -> Outputs | None:
    with suppress(RecordError):  # damaged: as good as none
        return read_outputs(records, stage)
    return None


def _upstream(
    before: Sequence[Verdict], jobs: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> list[str]:
    """Say which stage before a stage makes other inputs for it, or has made them."""
    for verdict in before:
        if verdict.runs:
            return [f"upstream outputs: {verdict.stage} runs again"]
    for each in jobs:
        if (each.get(CARRIED_CREATED) or 0) > (job.get(CARRIED_CREATED) or 0):
            return [f"upstream outputs: {each['stage']} has run again since"]
    return []
