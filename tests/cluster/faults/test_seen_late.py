"""What one machine writes to a shared folder is seen by the others seconds later, both ways.

A job has a journal of its own, mounted in its own name space over the one that all others see, and
sees the launcher's as it was some seconds ago. Of all this SLURM knows nothing: it says at once
that a job has ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.faults.table import CLOCKS
from tests.cluster.slurm_launches import Site, until
from tests.conftest import lacks

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(CLOCKS)]
LATE_S = 3.0
# The interpreter of a job's processes, which work in submitit's folder. One on the launcher's own
# machine knows whether that has ended, and would not wait for what it has to say.
PYTHON = """\
#!/bin/sh
events=$(dirname "$(pwd -P)")/events
: >> "$events/{stage}.jsonl"
exec unshare --uts --mount --propagation private sh -c '
    hostname "$SLURMD_NODENAME" || exit 9
    mount --bind "{node}/{stage}.jsonl" "$1/{stage}.jsonl" || exit 9
    mount --bind "{node}/launch.jsonl" "$1/launch.jsonl" || exit 9
    shift
    exec "{python}" "$@"
' sh "$events" "$@"
"""


@dataclass
class LateCopy:
    """Appends to one file what was appended to another, later."""

    source: Path
    seen: Path
    sizes: list[tuple[float, int]] = field(default_factory=list)

    def look(self) -> None:
        now = time.monotonic()
        self.sizes.append((now, self.source.stat().st_size))
        size = max((size for at, size in self.sizes if at <= now - LATE_S), default=0)
        with self.seen.open("ab") as file:
            file.write(self.source.read_bytes()[file.tell() : size])


@contextmanager
def copied(copies: list[LateCopy]) -> Iterator[None]:
    """Copy for as long as this is entered."""
    left = threading.Event()

    def copy() -> None:
        while not left.wait(0.05):
            for each in copies:
                each.look()

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


@dataclass(frozen=True)
class Seen:
    """What ``launcher status --json`` told of a stage, each time it was asked."""

    states: set[str]
    reasons: set[str]
    last: dict[str, Any]


def watch(site: Site, stages: tuple[str, ...]) -> dict[str, Seen]:
    """Ask for the status until the launch has ended, and once more when its jobs are gone."""
    told: list[dict[str, Any]] = []

    def ask() -> bool:
        shown = site.run("status", "--json")
        assert shown.returncode == 0, shown.stderr
        told.append(json.loads(shown.stdout))
        return bool(told[-1]["has_ended"])

    until(ask, 90, "the end of the launch")
    until(lambda: not site.queued(), 30, "that its jobs leave the queue")
    time.sleep(LATE_S + 1)
    ask()
    of_stages = {
        stage: [view["stages"][index] for view in told] for index, stage in enumerate(stages)
    }
    return {
        stage: Seen({e["state"] for e in each}, {e["reason"] for e in each}, each[-1])
        for stage, each in of_stages.items()
    }


@pytest.mark.parametrize(
    ("first", "states", "chain"),
    [
        ("report", [{"pending", "running", "done"}] * 2, "done"),
        ("fail", [{"pending", "running", "failed"}, {"pending", "skipped"}], "failed"),
    ],
)
def test_no_wrong_state_is_told_and_the_right_one_in_the_end(
    site: Site, tmp_path: Path, first: str, states: list[set[str]], chain: str
) -> None:
    stages, node = (first, "score"), tmp_path / "node"
    node.mkdir()
    (node / "launch.jsonl").touch()
    for stage in stages:
        (node / f"{stage}.jsonl").touch()
        python = PYTHON.format(stage=stage, node=node, python=sys.executable)
        (node / stage).write_text(python)
        (node / stage).chmod(0o755)
    if (
        subprocess.run(
            ["unshare", "--uts", "--mount", "true"], stderr=subprocess.DEVNULL
        ).returncode
        != 0
    ):
        lacks("a name space of mounts, which needs root")
    pythons = [f"stages.{stage}.python={node / stage}" for stage in stages]
    launch = site.launch("--stages", *stages, *pythons)
    events = launch.records.directory / "events"
    copies = [LateCopy(node / f"{stage}.jsonl", events / f"{stage}.jsonl") for stage in stages]
    with copied([*copies, LateCopy(events / "launch.jsonl", node / "launch.jsonl")]):
        seen = watch(site, stages)
    for stage, allowed in zip(stages, states, strict=True):
        assert seen[stage].states <= allowed, seen[stage]
    last = [seen[stage].last["state"] for stage in stages]
    assert last == (["done", "done"] if chain == "done" else ["failed", "skipped"])
    if chain == "done":  # the job was over before its record was seen
        assert any("not to be seen yet" in reason for reason in seen[first].reasons)
        assert seen[first].last["results"] == {"reported": 1}
    else:
        assert seen[first].last["reason"] == "exit status 3"
        assert seen["score"].last["reason"] == "fail failed"
