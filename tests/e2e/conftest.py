"""Figures that the end-to-end tests measure, printed after the tests' own summary."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_figures: list[str] = []


@pytest.fixture(scope="session")
def report() -> Callable[[str], None]:
    """Return a function that keeps a line for the end of the test run."""
    return _figures.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("measured")
        for line in _figures:
            terminalreporter.line(line)
