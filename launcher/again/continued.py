"""What a launch takes over from an earlier one: the stages that it does not run, as they ended.

Their job records, fingerprints and outputs are copied, and an event ``carried`` tells how each
ended and which launch ran it. So the launch speaks for the whole chain, also when the earlier one
is cleaned away.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.job.stage_outputs import OUTPUTS_DIR
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus

# Of a job record: which launch ran the stage, and when that was made.
CARRIED_FROM, CARRIED_CREATED = "carried_from", "carried_created"
RESUMES, REPRODUCES = "resumes", "reproduces"


@dataclass(frozen=True)
class Continued:
    """A launch that another goes on from, or repeats.

    Attributes:
        earlier: the records of that launch.
        link: the key under which the new launch's record names it.
        carried: how the stages ended that are taken over.
    """

    earlier: LaunchRecords
    link: str
    carried: Sequence[JobStatus] = ()

    def job_records(self) -> dict[str, dict[str, Any]]:
        """Return the job records of the stages that are taken over, by stage."""
        record = self.earlier.read_launch()
        stages = {status.stage for status in self.carried}
        return {
            job["stage"]: {**job, **origin(self.earlier, record, job)}
            for job in record["jobs"]
            if job["stage"] in stages
        }

    def write(self, records: LaunchRecords) -> None:
        """Tell in a new launch how those stages ended, and what they left.

        Raises:
            RecordError: it cannot be written.
        """
        jobs = self.job_records()
        for status in self.carried:
            records.append(
                status.stage,
                "carried",
                launch=jobs[status.stage][CARRIED_FROM],
                state=status.state,
                reason=status.reason,
                started=status.started,
                ended=status.ended,
                exit_code=status.exit_code,
                output_inode=status.output_inode,
            )
            name = Path(OUTPUTS_DIR, f"{status.stage}.json")
            with suppress(OSError):  # without them the stage is run again, when it comes to that
                (records.directory / OUTPUTS_DIR).mkdir(mode=0o700, exist_ok=True)
                shutil.copyfile(self.earlier.directory / name, records.directory / name)

    def tell_earlier(self, records: LaunchRecords) -> None:
        """Have the earlier launch name the one that goes on from it."""
        self.earlier.append(
            LAUNCH, f"{self.link.removesuffix('s')}d_by", launch=str(records.directory)
        )


def origin(
    records: LaunchRecords, record: Mapping[str, Any], job: Mapping[str, Any]
) -> dict[str, Any]:
    """Return which launch ran a stage, and when that was made, as its job's record tells it."""
    if job.get(CARRIED_FROM) is not None:
        return {CARRIED_FROM: job[CARRIED_FROM], CARRIED_CREATED: job.get(CARRIED_CREATED)}
    return {CARRIED_FROM: str(records.directory), CARRIED_CREATED: record.get("created")}
