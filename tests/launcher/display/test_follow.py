"""What a person sees of a launch, while it runs and at its end."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from launcher.display import follow as follow_module
from launcher.display.follow import follow
from launcher.display.render import Row, duration, live_table, short_path
from launcher.processes.interrupts import Interrupts, counted_interrupts
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import job_status

STAGES = ("prepare", "fit", "score")


class NoCluster:
    """Cancels by recording the end of the job, as the job itself would."""

    def __init__(self, records: LaunchRecords) -> None:
        self.records = records
        self.asked: list[tuple[str, bool]] = []

    def submit(self, *_: object) -> None:
        raise AssertionError("following submits nothing")

    def states(self, job_ids: object) -> dict[str, object]:
        return {}

    def cancel(self, status: object, *, force: bool) -> None:
        self.asked.append((status.stage, force))
        if force or status.stage != "fit":  # fit does not listen
            self.records.append(
                status.stage, "ended", state="cancelled", reason="cancelled", exit_code=None
            )


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchRecords:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(follow_module, "POLL_S", 0.01)
    records = LaunchRecords.create(tmp_path / "launches" / "one")
    jobs = []
    for stage in STAGES:
        base = tmp_path / "exp" / f"an_experiment_with_{'a_long_' * 8}name" / stage
        base.parent.mkdir(parents=True, exist_ok=True)
        suffixes = {"output": ".out", "log": ".log", "metadata": ".metadata.json"}
        files = {name: str(base) + suffix for name, suffix in suffixes.items()}
        jobs.append({"stage": stage, **files})
    records.write_launch({"jobs": jobs})
    for stage in STAGES:
        records.append(LAUNCH, "submitted", stage=stage, job_id="7")
    return records


def end(records: LaunchRecords, stage: str, state: str, reason: str = "") -> None:
    records.append(stage, "ended", state=state, reason=reason, exit_code=int(state != "done"))


def shown(records: LaunchRecords, **options: object) -> tuple[int, str]:
    file = io.StringIO()
    console = Console(file=file, highlight=False, **options)
    status = follow(records, NoCluster(records), Interrupts(), console)
    return status, file.getvalue()


def run_through(records: LaunchRecords) -> None:
    job = records.read_launch()["jobs"][0]
    records.append("prepare", "started")
    Path(job["output"]).write_text("working\n")
    Path(job["log"]).write_text("working\n")
    Path(job["metadata"]).write_text(
        '{"results": {"test": {"WER": 0.0}, "words": "' + "many, " * 60 + '"}}'
    )
    end(records, "prepare", "done")
    records.append("fit", "started")
    output = Path(records.read_launch()["jobs"][1]["output"])
    output.write_text("=== [FAILED] stage: fit (0.1s) ===\nout of [memory]\n")
    end(records, "fit", "failed", "exit status 1")
    end(records, "score", "skipped", "fit failed")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_final_table_breaks_no_path(records: LaunchRecords, width: int) -> None:
    run_through(records)
    status, text = shown(records, force_terminal=True, width=width, no_color=True)
    assert status == 1
    job = records.read_launch()["jobs"][0]
    assert os.path.relpath(job["log"]) in text
    assert "\nprepare  words many, many," in text
    assert "\n         WER test 0.0 %\n" in text
    assert max(len(line) for line in text.splitlines() if "many" in line) <= width
    assert "fit failed: exit status 1" in text
    assert "  │ out of [memory]" in text
    assert "score    skipped" in text


def test_without_a_terminal_a_line_for_each_change(records: LaunchRecords) -> None:
    run_through(records)
    status, text = shown(records)
    assert status == 1
    lines = [line.split(None, 1)[1] for line in text.splitlines()[:3]]
    assert lines[0].startswith("prepare          done      0.")
    assert lines[2] == "score            skipped   fit failed"
    assert "\x1b" not in text


def test_without_a_terminal_a_sign_of_life(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "PROGRESS_EVERY_S", 0.05)
    records.append("prepare", "started")
    Path(records.read_launch()["jobs"][0]["output"]).write_text("step 3\n")

    def finish() -> None:
        time.sleep(0.3)
        for stage in STAGES:
            end(records, stage, "done")

    finisher = threading.Thread(target=finish)
    finisher.start()
    status, text = shown(records)
    finisher.join()
    assert status == 0
    assert text.count("prepare          running   0.") >= 2
    assert "s: step 3" in text


def test_control_c_cancels_and_a_second_one_kills(records: LaunchRecords) -> None:
    before = signal.getsignal(signal.SIGINT)
    records.append("prepare", "started")
    cluster = NoCluster(records)

    def press_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        # Python counts signals as one that come before it looks: the second waits for the first.
        deadline = time.monotonic() + 20
        while len(cluster.asked) < len(STAGES) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press_twice)
    file = io.StringIO()
    with counted_interrupts() as interrupts:
        presser.start()
        status = follow(records, cluster, interrupts, Console(file=file))
    presser.join()
    assert status == 130
    assert cluster.asked == [("score", False), ("fit", False), ("prepare", False), ("fit", True)]
    assert records.events(LAUNCH)[len(STAGES)]["stages"] == list(STAGES)
    assert "cancelling the launch; Ctrl-C once more kills it" in file.getvalue()
    assert signal.getsignal(signal.SIGINT) is before


def test_two_presses_at_once_kill(records: LaunchRecords) -> None:
    cluster = NoCluster(records)
    interrupts = Interrupts()
    interrupts.count = 2
    assert follow(records, cluster, interrupts, Console(file=io.StringIO())) == 130
    assert cluster.asked == [(stage, True) for stage in reversed(STAGES)]


def test_the_live_table_shows_the_last_line_and_leaves_room_for_an_echoed_control_c(
    records: LaunchRecords,
) -> None:
    records.append("prepare", "started")
    job = records.read_launch()["jobs"][0]
    Path(job["output"]).write_text("step [1] of many " + "x" * 200)
    row = Row.of(job_status(records, "prepare"), job)
    file = io.StringIO()
    Console(file=file, width=80).print(live_table([row], width=77))
    _, shown_row = file.getvalue().splitlines()
    assert shown_row.startswith("prepare  running  0.0 s  step [1] of many xxx")
    assert shown_row.endswith("…")
    assert len(shown_row) <= 77


def test_kept_work_is_told_from_work_done(records: LaunchRecords) -> None:
    for job, kept in zip(records.read_launch()["jobs"], ("true", "false", '"yes"'), strict=True):
        records.append(job["stage"], "started")
        metadata = f'{{"kept": {kept}, "results": {{"steps": 30}}}}'
        Path(job["metadata"]).write_text(metadata)
        end(records, job["stage"], "done")
    status, text = shown(records)
    assert status == 0
    assert re.search(r"prepare +kept +0\.\d s\n", text)  # as it happens
    states = re.findall(r"^(\w+) +(kept|done) .*/", text, re.MULTILINE)
    assert states == [("prepare", "kept"), ("fit", "done"), ("score", "done")]
    assert "prepare  steps 30" in text
    assert "kept: made by an earlier run" in text


def test_what_a_cancelled_stage_saved_is_told(records: LaunchRecords) -> None:
    job = records.read_launch()["jobs"][0]
    records.append("prepare", "started")
    saved = "checkpoint after step 29 of 30; the next train goes on from it"
    Path(job["metadata"]).write_text(
        f'{{"state": "interrupted", "results": {{"a": 1}}, "exit": {{"message": "{saved}"}}}}'
    )
    for stage in STAGES:
        end(records, stage, "cancelled", "cancelled")
    _, text = shown(records)
    assert f"\nprepare cancelled: {saved}\n" in text
    assert "fit cancelled:" not in text
    assert "a 1" not in text  # figures of what was not finished


def test_a_row_shows_the_files_of_its_own_run_under_their_number(records: LaunchRecords) -> None:
    job = records.read_launch()["jobs"][0]
    output = Path(job["output"])
    output.write_text("mine")
    inode = output.stat().st_ino
    records.append("prepare", "started", output_inode=inode)
    end(records, "prepare", "done")
    output.rename(output.with_name("prepare1.out"))
    written = {"results": {"steps": 1}, "job": {"output_inode": inode}}
    output.with_name("prepare1.metadata.json").write_text(json.dumps(written))
    output.write_text("of a later run")
    output.with_name("prepare.metadata.json").write_text('{"results": {"steps": 2}}')
    row = Row.of(job_status(records, "prepare"), job)
    assert row.results == {"steps": 1}
    assert row.shown_log.endswith("/prepare1.out")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.04, "0.0 s"), (9.97, "10 s"), (59.6, "1:00"), (187, "3:07"), (3723, "1:02:03")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "exp" / "a b.log") == "exp/a b.log"
    assert short_path(tmp_path.parent) == str(tmp_path.parent)
