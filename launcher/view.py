"""A launch as it is shown: records, the scheduler's word and the stages' metadata, put together.

What stands here is what ``launcher status --json`` prints, and what the table, the report and
``launcher list`` are made from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import status as states
from launcher.display.render import Row
from launcher.errors import RecordError
from launcher.output import failure_lines
from launcher.printable import harmless, printable
from launcher.private import check_unwritten
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus, chain_status, exit_signal

if TYPE_CHECKING:
    from launcher.clusters.base import Cluster

SCHEMA = 1  # of the JSON; fields are added without a new number, never renamed or removed
ASKED = ("nodes", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")


@dataclass(frozen=True)
class StageView:
    """One stage of a launch. Times are seconds since the epoch.

    Attributes:
        row: its state and the files of its run.
        after: the stage that it comes after.
        node: where it runs, or ran last.
        submitted: when its job was handed over.
        attempt: how often its job was put back into the queue.
        asked: resources that it asks for, those that it does not left out.
        used: what it used, as its metadata has it; None where that was not measured.
        now: the moment of looking, to which running stages are counted.
    """

    row: Row
    after: str | None
    node: str | None
    submitted: float | None
    attempt: int
    asked: Mapping[str, Any]
    used: Mapping[str, Any] | None
    now: float

    @property
    def status(self) -> JobStatus:
        """Its state, and what goes with it."""
        return self.row.status

    @property
    def queue_s(self) -> float | None:
        """Seconds from its submission to its start, or until now; None where it never started."""
        if self.submitted is None:
            return None
        if self.status.started is None and self.status.has_ended:
            return None
        began = self.now if self.status.started is None else self.status.started
        return max(min(began, self.now) - self.submitted, 0.0)  # two clocks may differ

    @property
    def run_s(self) -> float | None:
        """Seconds that it ran, or has run until now."""
        return self.row.elapsed_s

    @property
    def failure_lines(self) -> list[str]:
        """Last lines of its log that say why it failed; none of a stage that did not."""
        if self.status.state != states.FAILED:
            return []
        log = self.row.output if self.status.started is not None else self.row.job_log
        return failure_lines(log) if log is not None else []

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        status, row = self.status, self.row
        has_begun = status.started is not None
        return {
            "stage": status.stage,
            "state": status.state,
            "kept": row.shown_state != status.state,
            "carried_from": status.carried_from,
            "reason": status.reason,
            "after": self.after,
            "job_id": status.job_id,
            "node": self.node,
            "attempt": self.attempt,
            "submitted": self.submitted,
            "started": status.started,
            "ended": status.ended,
            "queue_s": self.queue_s,
            "run_s": self.run_s,
            "exit_code": status.exit_code,
            "signal": exit_signal(status.exit_code),
            "resources_asked": dict(self.asked),
            "resources_used": None if self.used is None else dict(self.used),
            "log": str(row.log) if has_begun else None,
            "output": str(row.output) if has_begun else None,
            "metadata": str(row.metadata) if has_begun else None,
            "job_log": None if row.job_log is None else str(row.job_log),
            "failure_lines": self.failure_lines,
            "results": row.results,
        }


@dataclass(frozen=True)
class LaunchView:
    """A launch and its stages.

    Attributes:
        directory: the launch directory.
        record: its ``launch.json``.
        stages: in the order of the chain.
        damaged: what could not be read, in words; the rest is told all the same.
        unasked: what could not be asked of the scheduler, in words; empty when all was told.
    """

    directory: Path
    record: Mapping[str, Any]
    stages: Sequence[StageView]
    damaged: Sequence[str] = ()
    unasked: str = ""

    @classmethod
    def of(
        cls, records: LaunchRecords, cluster: Cluster | None = None, *, unasked: str = ""
    ) -> LaunchView:
        """Look at a launch.

        Args:
            records: of the launch.
            cluster: asked for what is not on record, by two calls at most; None to ask nobody.
            unasked: why nobody is asked.

        Raises:
            RecordError: its ``launch.json`` cannot be read.
        """
        record, damage = records.launch_and_damage()
        now = time.time()
        chain = chain_status(records, cluster)
        submissions = records.submissions()
        stages = [
            _stage_view(status, job, records, submissions.get(status.stage, {}), now)
            for status, job in zip(chain, record["jobs"], strict=True)
        ]
        damage += [told for stage in stages for told in stage.row.damage]
        damage = [*_open_to_others(records), *damage, *_damaged_journals(records, record)]
        return cls(records.directory, record, stages, [harmless(each) for each in damage], unasked)

    @property
    def state(self) -> str:
        """The state of the whole: running while anything of it does, else the worst of its ends."""
        told = [stage.status.state for stage in self.stages]
        # Cancelled stages after a failed one are its consequence, and so are skipped ones.
        for state in (states.RUNNING, states.FAILED, states.CANCELLED):
            if state in told and (state == states.RUNNING or states.PENDING not in told):
                return state
        return states.PENDING if states.PENDING in told else told[-1]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return all(stage.status.has_ended for stage in self.stages)

    @property
    def in_words(self) -> str:
        """Its state with the stage: ``running train, 4 of 7``, ``failed: train (stage 4 of 7)``."""
        for number, stage in enumerate(self.stages, 1):
            if stage.status.state != states.DONE and stage.status.state == self.state:
                name = stage.status.stage
                if self.state in (states.RUNNING, states.PENDING):
                    return f"{self.state} {name}, {number} of {len(self.stages)}"
                return f"{self.state}: {name} (stage {number} of {len(self.stages)})"
        return self.state

    @property
    def experiment(self) -> str:
        """Name of the experiment: the folder of its results, else of the recipe."""
        plan = self.record.get("plan", {})
        name = Path(plan.get("exp_dir") or self.record.get("recipe_dir") or "?").name
        return printable(name)

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from its making to its end, or until now; None where the record lacks one."""
        own = [each for each in self.stages if each.status.carried_from is None]
        ends = [each.status.ended for each in own if each.status.ended is not None]
        created = self.record.get("created")
        end = max(ends, default=None) if self.has_ended else time.time()
        if not isinstance(created, (int, float)) or end is None:
            return None
        return max(end - created, 0.0)

    @property
    def goes_on_from(self) -> str | None:
        """Its link to an earlier launch, in words: ``resumes NAME``; None where it has none."""
        links = ("resumes", "reproduces")
        found = [(link, self.record[link]) for link in links if self.record.get(link)]
        return f"{found[0][0]} {Path(str(found[0][1])).name}" if found else None

    @property
    def cluster(self) -> str:
        """Name of the cluster that it was handed to."""
        return str(self.record.get("config", {}).get("cluster", {}).get("name", "?"))

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "schema": SCHEMA,
            "launch": self.directory.name,
            "directory": str(self.directory),
            "experiment": self.experiment,
            "recipe_dir": self.record.get("recipe_dir"),
            "exp_dir": self.record.get("plan", {}).get("exp_dir"),
            "cluster": self.cluster,
            "container": self.record.get("config", {}).get("container", {}).get("name"),
            "created": self.record.get("created"),
            "state": self.state,
            "has_ended": self.has_ended,
            "scheduler_not_asked": self.unasked or None,
            "damaged": list(self.damaged),
            "notices": list(self.record.get("notices", ())),
            "stages": [stage.to_record() for stage in self.stages],
        }


def _stage_view(
    status: JobStatus,
    job: Mapping[str, Any],
    records: LaunchRecords,
    submission: Mapping[str, Any],
    now: float,
) -> StageView:
    row = Row.of(status, dict(job), records.directory)
    begun = [each for each in records.events(status.stage) if each["event"] == "started"]
    last = begun[-1] if begun else {}
    asked = job.get("resources", {})
    return StageView(
        row=row,
        after=job.get("after"),
        node=last.get("host"),
        submitted=submission.get("time"),
        attempt=last.get("attempt", 0),
        asked={name: asked[name] for name in ASKED if asked.get(name) is not None},
        used=row.recorded.get("job", {}).get("used"),
        now=now,
    )


def _damaged_journals(records: LaunchRecords, record: Mapping[str, Any]) -> list[str]:
    told = []
    for name in (LAUNCH, *(job["stage"] for job in record["jobs"])):
        journal = records.journal(name)
        if journal.num_damaged:
            one = journal.num_damaged == 1
            lines = "1 line that is" if one else f"{journal.num_damaged} lines that are"
            which = f" (line {journal.first_damage})" if journal.first_damage else ""
            told.append(f"events/{name}.jsonl has {lines} damaged and passed over{which}")
    return told


def _open_to_others(records: LaunchRecords) -> list[str]:
    """Say that others may have written what is shown."""
    try:
        check_unwritten(records.directory)
    except RecordError as error:
        return [str(error)]
    return []
