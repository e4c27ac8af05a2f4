"""``launcher list``: what is told of each launch, and how wide that is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.commands.list import table
from launcher.display.catalogue import Entry
from launcher.records import LaunchRecords
from launcher.view import LaunchView
from tests.launcher.test_view import end, make_launch

NAME = "20261127-112752-mini_an4-asr"


@pytest.fixture
def found(hostile_path: Path) -> list[Entry]:
    """Return a launch that failed, one that resumes it, and one whose record is damaged."""
    made = []
    for number, name in enumerate(["first", "second"]):
        records = make_launch(hostile_path / name)
        records.directory.rename(records.directory.parent / f"{NAME}.{number}")
        records = LaunchRecords(records.directory.parent / f"{NAME}.{number}")
        record = records.read_launch()
        record["created"] -= 100
        if made:
            record["resumes"] = str(made[0].directory)
        records.write_launch(record)
        made.append(records)
    end(made[0], "prepare", "failed")
    entries = [Entry(records.directory, LaunchView.of(records)) for records in made]
    return [*entries, Entry(hostile_path / "broken", None, "its launch.json cannot be read")]


def test_a_line_tells_all_of_a_launch(found: list[Entry]) -> None:
    head, first, second, broken = table(found, width=1000).plain.splitlines()
    assert head.split() == [
        "launch",
        "made",
        "cluster",
        "state",
        "took",
        "stages",
        "experiment",
        "note",
    ]
    assert re.search(r"  slurm +failed: prepare \(stage 1 of 3\)  1:4\d +3  tiny$", first)
    assert re.search(rf"  3  tiny +resumes {re.escape(NAME)}\.0$", second)
    assert re.search(r"^broken .* damaged .*its launch\.json cannot be read$", broken)


def test_what_has_no_room_stands_below(found: list[Entry]) -> None:
    lines = table(found, width=80).plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["launch", "state", "took"]
    assert re.fullmatch(rf"{NAME}\.0  failed: prepare \(stage 1 of 3\)  1:4\d", lines[1])
    assert re.fullmatch(r"    \d{4}-\d\d-\d\d \d\d:\d\d, slurm, 3 stages, tiny", lines[2])
    assert f"resumes {NAME}.0" in " ".join(line.strip() for line in lines[4:6])


def test_the_same_as_values(found: list[Entry]) -> None:
    first, second, broken = (entry.to_record() for entry in found)
    assert first["resumes"] is None
    assert second["resumes"] == str(found[0].directory)
    assert 99 < first["elapsed_s"] < 200
    assert (first["stages"], first["experiment"]) == (["prepare", "fit", "score"], "tiny")
    assert (broken["elapsed_s"], broken["state"]) == (None, "damaged")
