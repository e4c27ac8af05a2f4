"""What sbatch says of a job that could never run, with what was asked for and what there is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from launcher.errors import ConfigError, LauncherError, NoAnswer
from launcher.slurm.calls import Unreachable, ask, run

# What says of a refusal that less of something, or another, would have been taken.
_TOO_MUCH = re.compile(r"available|processors|feature|partition|node count|[Mm]emory|[Gg]eneric")
_SHOWN_PARTITIONS = 4
_SINFO = "sinfo -o '%P %D %c %m %G %f'"


def check_fits(script: str, stage: str, asked: Mapping[str, object]) -> None:
    """Have sbatch say whether a job like this could ever run; nothing is queued.

    Args:
        script: of the job.
        stage: its name.
        asked: settings by which it asks for nodes and what they have; None: not asked for.

    Raises:
        ConfigError: it could not; the message is sbatch's, what was asked and what there is.
        Unreachable, NoAnswer: there is nobody to ask.
    """
    try:
        run(["sbatch", "--test-only"], script)
    except (Unreachable, NoAnswer):
        raise
    except LauncherError as error:
        there = ""
        if _TOO_MUCH.search(str(error)):
            shown = ", ".join(f"{name}={value}" for name, value in asked.items() if value)
            there = f" It asks for {shown or 'nothing in particular'}. {_what_there_is()}"
        raise ConfigError(
            f"SLURM would not take {stage}: {error}.{there} What a stage asks for is set with "
            f"stages.{stage}.KEY=VALUE; --dry-run shows the script."
        ) from error


def _what_there_is() -> str:
    """Tell what the nodes of each partition have, and how to see more."""
    lines = (ask(["sinfo", "--noheader", "--format=%P|%D|%c|%m|%G"]) or "").splitlines()
    partitions = [_as_partition(*fields) for line in lines if len(fields := line.split("|")) == 5]
    if not partitions:
        return f"What there is: {_SINFO}."
    left = len(partitions) - _SHOWN_PARTITIONS
    more = f"; and {left} more: {_SINFO}" if left > 0 else f" ({_SINFO})"
    return f"There is: {'; '.join(partitions[:_SHOWN_PARTITIONS])}{more}."


def _as_partition(name: str, nodes: str, cpus: str, memory_mib: str, gres: str) -> str:
    # A plus sign says that some of these nodes have more.
    mib = memory_mib.rstrip("+")
    memory = f"{int(mib) * 10 // 1024 / 10:g} GiB" if mib.isdigit() else memory_mib
    more = "" if gres == "(null)" else f", {gres}"
    return f"{name.rstrip('*')}: {nodes} nodes with {cpus} CPUs, {memory}{more}"
