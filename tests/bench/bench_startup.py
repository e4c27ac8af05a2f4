"""What the launcher costs before anything runs, as ratios to ``python -c pass`` in the same run.

Machines differ and are shared: only the ratios are worth comparing. ``make bench`` calls it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "launcher --help": ["-m", "launcher", "--help"],
    "launcher status --help": ["-m", "launcher", "status", "--help"],
    "dry run of the default recipe": [
        *("-m", "launcher", "--dry-run", "--container", "none"),
        *("--recipe", "egs3/mini_an4/asr"),
    ],
}


def seconds(arguments: Sequence[str]) -> float:
    """Return how long a Python process takes, from its start to its end."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def main() -> None:
    """Measure all commands in turn, several times, and print medians and ratios."""
    measured: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            measured[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in measured.items()}
    base = medians["python -c pass"]
    print(f"median of {ROUNDS}, in turn")
    for name, median in medians.items():
        print(f"  {name:32} {1000 * median:7.0f} ms  {median / base:5.1f} x")


if __name__ == "__main__":
    main()
