"""The table of faults counts what it says, and has tests for every row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.cluster.faults import table
from tests.cluster.faults.table import CANCELLED, DOCKERD, HANGUP, ROWS, FaultTable
from tests.conftest import REPOSITORY


def item(nodeid: str, *rows: str) -> pytest.Item:
    marks = [SimpleNamespace(args=(row,)) for row in rows]
    return cast("pytest.Item", SimpleNamespace(nodeid=nodeid, iter_markers=lambda _: marks))


def report(nodeid: str, when: str, outcome: str) -> Any:
    return SimpleNamespace(nodeid=nodeid, when=when, outcome=outcome)


def test_survived_and_lost_are_counted_by_row() -> None:
    table = FaultTable()
    about = {
        "a": [HANGUP],
        "b": [DOCKERD, HANGUP],
        "c": [DOCKERD],
        "d": [DOCKERD],
        "e": [CANCELLED],
    }
    items = [item(nodeid, *rows) for nodeid, rows in about.items()]
    table.pytest_collection_modifyitems([*items, item("of no row")])
    for nodeid in "abc":
        table.pytest_runtest_logreport(report(nodeid, "setup", "passed"))
    table.pytest_runtest_logreport(report("a", "call", "passed"))
    table.pytest_runtest_logreport(report("b", "call", "failed"))
    table.pytest_runtest_logreport(report("b", "teardown", "passed"))
    table.pytest_runtest_logreport(report("c", "call", "passed"))
    table.pytest_runtest_logreport(report("c", "teardown", "failed"))  # what it broke stays broken
    table.pytest_runtest_logreport(report("d", "setup", "failed"))
    table.pytest_runtest_logreport(report("e", "setup", "skipped"))
    table.pytest_runtest_logreport(report("of no row", "call", "failed"))
    lines = {" ".join(line.split()) for line in table.lines()}
    assert {
        "fault survived lost not tried",
        f"{HANGUP} 1 1 0",
        f"{DOCKERD} 0 3 0",
        f"{CANCELLED} 0 0 1",
        "tests 1 3 1",
    } <= lines
    assert len(table.lines()) == len(ROWS) + 2


def test_a_row_that_does_not_exist_is_refused() -> None:
    with pytest.raises(pytest.UsageError, match=r"x\.py::y: no such row: earthquake"):
        FaultTable().pytest_collection_modifyitems([item("x.py::y", "earthquake")])


def marked(path: Path) -> Iterator[str]:
    """Return the names by which a module of tests marks its tests with rows."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.faults":
            yield from map(ast.unparse, node.args)


def test_every_row_has_a_test() -> None:
    """Parts that are missing here keep no module from being read."""
    paths = [path for path in REPOSITORY.glob("tests/**/test_*.py") if path != Path(__file__)]
    found = {str(getattr(table, name)) for path in paths for name in marked(path)}
    assert found == set(ROWS)
