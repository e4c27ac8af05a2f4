"""The faults that a launch is to survive, and how many tests of each came out well.

A test says which fault it is about: ``@pytest.mark.faults(DOCKERD)``, wherever it stands. Every run
of the suite that holds such tests ends with the table; ``make faults`` runs them alone.
docs/survival.md says of each row what happens, and what is left to the person.
"""

from __future__ import annotations

from collections import Counter

import pytest

LAUNCHER_KILLED = "launcher killed (SIGKILL) between two submissions"
HANGUP = "terminal closed, ssh dropped (SIGHUP)"
CANCELLED = "scancel, cancel, Ctrl-C in debug, payload ignoring TERM"
PROCESS_KILLED = "SIGKILL of the job's process, docker's client, slurmstepd"
TRAINING_DISTURBED = "time limit, preemption, node lost during train"
SLURM_AWAY = "slurmctld restarted; squeue or sacct timing out"
DOCKERD = "dockerd restarted or killed"
OUT_OF_MEMORY = "out of memory (container, cgroup, CUDA)"
DISK_FULL = "disk full in the log, exp or launch directory"
TWO_LAUNCHES = "two launches into one exp_dir at once"
CLOCKS = "clock skew, files that are seen late"
OTHERS = "launch directory open to others, pickle replaced"
DAMAGED = "a corrupted or half-written record"
ROWS = (
    LAUNCHER_KILLED,
    HANGUP,
    CANCELLED,
    PROCESS_KILLED,
    TRAINING_DISTURBED,
    SLURM_AWAY,
    DOCKERD,
    OUT_OF_MEMORY,
    DISK_FULL,
    TWO_LAUNCHES,
    CLOCKS,
    OTHERS,
    DAMAGED,
)
_SURVIVED, _LOST, _NOT_TRIED = "survived", "lost", "not tried"
_OF_OUTCOME = {"passed": _SURVIVED, "failed": _LOST, "skipped": _NOT_TRIED}


class FaultTable:
    """A plugin of pytest's: counts by row, and prints the table at the end."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, ...]] = {}
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Learn which rows each test is about.

        Raises:
            pytest.UsageError: there is no such row.
        """
        for item in items:
            named = tuple(row for mark in item.iter_markers("faults") for row in mark.args)
            if unknown := set(named).difference(ROWS):
                raise pytest.UsageError(f"{item.nodeid}: no such row: {', '.join(unknown)}")
            if named:
                self.rows[item.nodeid] = named

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a test; what goes wrong before or after it counts as lost."""
        if report.nodeid not in self.rows:
            return
        told = _OF_OUTCOME[report.outcome]
        counts = report.when == "call" or told != _SURVIVED
        if counts and self.outcomes.get(report.nodeid) != _LOST:
            self.outcomes[report.nodeid] = told

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, unless none of its tests was run."""
        if self.outcomes:
            terminalreporter.section("faults")
            for line in self.lines():
                terminalreporter.write_line(line)

    def lines(self) -> list[str]:
        """Return the lines of the table."""
        counts = {row: Counter[str]() for row in ROWS}
        for nodeid, outcome in self.outcomes.items():
            for row in self.rows[nodeid]:
                counts[row][outcome] += 1
        width = max(map(len, ROWS))
        columns = (_SURVIVED, _LOST, _NOT_TRIED)

        def line(name: str, figures: tuple[object, ...]) -> str:
            return f"{name:<{width}}" + "".join(f"  {figure:>9}" for figure in figures)

        total = Counter(self.outcomes.values())
        return [
            line("fault", columns),
            *(line(row, tuple(count[each] for each in columns)) for row, count in counts.items()),
            line("tests", tuple(total[each] for each in columns)),
        ]
