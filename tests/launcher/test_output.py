"""Reading what a stage printed, and the files that receive it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.job.prepared import job_environment
from launcher.output import failure_lines, last_line
from launcher.results import figure_lines, read_metadata

HEAD = "[host] 2026-11-22 14:03:00 UTC (system.py:12) INFO:\t[train] "
BLOCK = HEAD.replace("system.py", "logging_utils.py")
CONFIG = f"{BLOCK}Config "


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (f"{HEAD}epoch 3\n\n", "epoch 3"),
        ("  1%|  \r 50%|##  \r 99%|### \n", "99%|###"),
        ("  1%|  \r 50%|##  ", "50%|##"),
        ("\x1b[32mgreen\x1b[0m\n", "green"),
        ("first\nsecond, not yet whole", "second, not yet whole"),
        (f"{HEAD}=== [START] ===\n{CONFIG}c: conf/x.yaml\nrecipe_dir: /tmp\n", "=== [START] ==="),
        (f"{HEAD}a\n{CONFIG}c: x\na: 1\n{BLOCK}Python 3.11\nprinted\n", "printed"),
        (f"{CONFIG}c: x\na: 1\n{HEAD}Config is what I talk about\n", "Config is what I talk about"),
        (b"caf\xe9\n", "caf\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_last_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    path = tmp_path / "train.out"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert last_line(path) == line


def test_last_line_of_a_long_file_and_of_none(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    assert last_line(path) == ""
    path.write_text("x" * 100_000 + "\nthe end\n")
    assert last_line(path) == "the end"


def test_failure_lines_begin_where_the_stage_failed(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    path.write_text(
        f"{HEAD}fine\n{HEAD.replace('INFO', 'ERROR')}=== [FAILED] stage: train (0.1s) ===\n"
        "Config not found: a.yaml\n"
    )
    assert failure_lines(path) == [
        "=== [FAILED] stage: train (0.1s) ===",
        "Config not found: a.yaml",
    ]


def test_failure_lines_of_a_crash_before_the_framework_speaks(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    frames = [f"  frame {number}" for number in range(30)]
    lines = ["noise", "Traceback (most recent call last):", *frames, "ImportError: no such"]
    path.write_text("\n".join(lines))
    told = failure_lines(path)
    assert told[0] == "Traceback (most recent call last):"
    assert told[3] == "  …"
    assert told[-1] == "ImportError: no such"
    assert len(told) == 14
    path.write_text("\n".join(f"line {number}" for number in range(30)) + "\nKilled\n")
    assert failure_lines(path)[-1] == "Killed"


def test_failure_lines_of_a_stage_that_was_killed_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "train.out"
    path.write_text(f"{CONFIG}c: x\na: 1\n{BLOCK}Python 3.11\n{HEAD}step 80 of 240\n  a note\n")
    assert failure_lines(path) == ["step 80 of 240", "  a note"]


def test_metadata_of_an_earlier_run_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "measure.metadata.json"
    assert read_metadata(path, output_inode=7) == {}
    written = {"results": {"test": {"WER": 3.0}}, "job": {"output_inode": 7}}
    path.write_text(json.dumps(written))
    assert read_metadata(path, output_inode=7) == written
    assert read_metadata(path, output_inode=8) == {}
    assert read_metadata(path, output_inode=None) == written
    for other in ("[1]", "{", "{}", '{"job": 3}'):
        path.write_text(other)
        assert read_metadata(path, output_inode=7) == {}


def test_figures_are_grouped_by_metric_and_rates_are_in_percent() -> None:
    results = {
        "steps": 4000,
        "valid_WER": 0.25,
        "test": {"WER": 0.0, "CER": 12.345, "RTF": 0.0123456},
        "train": {"WER": 3.0, "by speaker": {"theo": {"WER": 1.0}}},
        "note": "kept",
        "kept": True,
    }
    assert figure_lines(results) == [
        "steps 4000, valid_WER 0.25 %, note kept, kept True",
        "WER test 0.0 %, train 3.0 %, train by speaker theo 1.0 %",
        "CER test 12.3 %",
        "RTF test 0.01235",
    ]
    assert figure_lines({}) == []


def test_the_stage_does_not_take_itself_for_a_submitit_job() -> None:
    inherited = {"A": "1", "HOME": "/h", "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7"}
    assert job_environment(inherited) == {"A": "1", "HOME": "/h", "SUBMITIT_LOCAL_JOB_ID": "7"}


def test_nothing_that_a_stage_prints_is_obeyed_by_the_terminal_that_shows_it(
    tmp_path: Path,
) -> None:
    output = tmp_path / "train.out"
    output.write_bytes(b"\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07 bell\x07 \xc2\x9b5m \x1bc\n")
    assert last_line(output) == r"red  bell\x07 \x9b5m \x1bc"
    assert failure_lines(output) == [r"red  bell\x07 \x9b5m \x1bc"]
