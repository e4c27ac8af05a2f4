"""The session of docs/recording.md, typed anew: ``python -m tests.cluster.recording`` writes it.

Commands, launches, the terminal that is closed and the node that is lost are real. The training is
so short that it is held in the middle, lest it be done before its node is lost.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from tests.cluster.checkouts import REPOSITORY
from tests.cluster.slurm_launches import until
from tests.cluster.terminals import Terminal

PAGE = REPOSITORY / "docs" / "recording.md"
# Set, it has the test write the page, in place of comparing.
WRITE = "WRITE_RECORDING"
LAUNCH = "python -m launcher --cluster slurm --container docker cluster.requeue=false"
_BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# How the folder of the checkout is called on the page.
_HOME = "/home/ada/espnet3-launcher"


def record(checkout: Path, environment: Mapping[str, str]) -> list[str]:
    """Type the session; return what the terminals show, block by block."""
    with Terminal(checkout, environment) as first:
        blocks = [first.type(LAUNCH)]
        assert first.close() == -signal.SIGHUP
    with Terminal(checkout, environment) as second:
        node = hold_training(checkout)
        blocks += [
            second.type("python -m launcher status"),
            second.type(f"python3 tests/cluster/rehearsal/lose_node.py {node}"),
            second.type('python -m launcher wait --quiet || echo "exit status $?"')
            + second.type("python -m launcher status"),
            second.type("python -m launcher resume"),
            second.type("python -m launcher wait --quiet && python -m launcher status")
            + second.type("python -m launcher logs train | grep 'Going on'"),
            second.type("python -m launcher report"),
        ]
    return [block.replace(str(checkout), _HOME) for block in blocks]


def hold_training(checkout: Path) -> str:
    """Suspend the training when it has saved its first checkpoint; return the node it is on."""
    output = checkout / "egs3" / "mini_an4" / "asr" / "exp" / "training" / "train.out"
    # It says so once the checkpoint is written.
    until(lambda: output.exists() and "step 80 of " in output.read_text(), 90, "a checkpoint")
    (launch,) = (checkout / ".launches").iterdir()
    held = list(trainings_of(launch.name))
    assert held
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    return str(LaunchRecords(launch).events("train")[0]["host"])


def trainings_of(launch: str) -> Iterator[int]:
    """Find the processes of a launch's training itself."""
    ours = f"LAUNCHER_LAUNCH_ID={launch}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:4] == [b"run.py", b"--stages", b"train"] and ours in variables:
            yield int(entry.name)


def blocks_of(page: str) -> list[str]:
    """Return the page's blocks."""
    return _BLOCK.findall(page)


def with_blocks(page: str, blocks: list[str]) -> str:
    """Return the page with other blocks in the place of its own."""
    assert len(blocks) == len(blocks_of(page))
    following = iter(blocks)
    return _BLOCK.sub(lambda _: f"```text\n{next(following)}```", page)


def stable(block: str) -> list[str]:
    """Return the lines of a block without what is another machine's, or another time's.

    Those are digests, numbers, and where lines and columns begin, which hangs on the numbers. The
    error rates of utterances that are known by heart stay: they are the same everywhere.
    """
    text = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", block)
    text = re.sub(r"\n {8,}", " ", text)  # figures that had no room on the line before
    numbers = re.compile(r"([WC]ER train \d+\.\d+)|\d[\d:.-]*\d|\d")
    text = numbers.sub(lambda found: found[1] or "N", text)
    text = re.sub(r"\bN s\b", "N", text)  # a minute and more has no unit: 1:02
    return [re.sub(" +", " ", line) for line in text.splitlines()]


if __name__ == "__main__":
    os.environ[WRITE] = "yes"
    sys.exit(pytest.main(["-q", "-x", str(Path(__file__).with_name("test_recording.py"))]))
