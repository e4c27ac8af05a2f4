"""The launch directory and what is told from it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import RecordError
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords
from launcher.status import chain_status, exit_reason, job_status
from tests.cluster.faults.table import DISK_FULL

JOB = {"stage": "fit", "output": "/fit.out", "log": "/fit.log", "metadata": "/fit.metadata.json"}


@pytest.fixture
def records(hostile_path: Path) -> LaunchRecords:
    return LaunchRecords.create(hostile_path / "launches" / "one")


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def submitted(records: LaunchRecords, stage: str, pid: int) -> None:
    process = ProcessId.of(pid).to_record()
    records.append(LAUNCH, "submitted", stage=stage, job_id=str(pid), process=process)


def test_launch_directories_are_private_and_never_shared(records: LaunchRecords) -> None:
    assert stat.S_IMODE(records.directory.stat().st_mode) == 0o700
    with pytest.raises(RecordError, match="another launch has just made"):
        LaunchRecords.create(records.directory)


def test_where_no_launch_directory_can_be_made_the_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"Not a directory.*launches_dir=PATH"):
        LaunchRecords.create(tmp_path / "file" / "launches" / "one")


def test_launch_record_is_read_back_or_refused(records: LaunchRecords) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        records.read_launch()
    records.write_launch({"id": "é", "jobs": [JOB]})
    assert records.read_launch()["id"] == "é"
    (records.directory / "launch.json").write_text('{"schema": 2}')
    with pytest.raises(RecordError, match="schema 1"):
        records.read_launch()


def test_damaged_lines_are_counted_and_the_rest_is_read(records: LaunchRecords) -> None:
    records.append("fit", "started")
    with (records.directory / "events" / "fit.jsonl").open("ab") as journal:
        journal.write(b'{"time": 1, "eve\n[1]\n\xff\n')
    records.append("fit", "ended", state="done", reason="", exit_code=0)
    events, damaged = records.events_and_damage("fit")
    assert [event["event"] for event in events] == ["started", "ended"]
    assert damaged == 3
    assert job_status(records, "fit").state == "done"


@pytest.mark.parametrize("jobs", [None, 3, [], [3], [{"stage": "fit"}], [{**JOB, "log": 3}]])
def test_a_launch_record_without_whole_jobs_is_refused(records: LaunchRecords, jobs: Any) -> None:
    records.write_launch({"jobs": jobs})
    with pytest.raises(RecordError, match=r"launch\.json is damaged: its list of jobs"):
        records.read_launch()


@pytest.mark.parametrize(
    ("journal", "event"),
    [
        ("fit", '{"time": "x", "event": "started"}'),
        ("fit", '{"time": 1, "event": "ended"}'),
        ("fit", '{"time": 1, "event": "ended", "state": 3, "reason": "", "exit_code": 0}'),
        ("fit", '{"time": 1, "event": "waiting"}'),
        (LAUNCH, '{"time": 1, "event": "submitted"}'),
        (LAUNCH, '{"time": 1, "event": "submitted", "stage": "fit", "job_id": "3", "process": 3}'),
        (LAUNCH, '{"time": 1, "event": "cancel_requested", "stages": 3}'),
    ],
)
def test_an_event_that_lacks_what_it_tells_is_damage(
    records: LaunchRecords, journal: str, event: str
) -> None:
    records.append(journal, "note")
    with (records.directory / "events" / f"{journal}.jsonl").open("a") as file:
        file.write(event + "\n")
    events, damaged = records.events_and_damage(journal)
    assert ([each["event"] for each in events], damaged) == (["note"], 1)
    assert job_status(records, "fit").state == "pending"


def test_a_journal_that_cannot_be_used_is_one_message(records: LaunchRecords) -> None:
    (records.directory / "events" / "fit.jsonl").mkdir()
    with pytest.raises(RecordError, match=r"cannot read .*Is a directory"):
        records.events("fit")
    with pytest.raises(RecordError, match=r"cannot write .*Is a directory"):
        records.append("fit", "started")


def _append_many(directory: Path, writer: int) -> None:
    for number in range(200):
        LaunchRecords(directory).append(LAUNCH, "note", writer=writer, number=number, pad="x" * 500)


def test_writers_never_mix(records: LaunchRecords) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_append_many, args=(records.directory, writer))
        for writer in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events, damaged = records.events_and_damage(LAUNCH)
    assert damaged == 0
    for writer in range(3):
        numbers = [event["number"] for event in events if event["writer"] == writer]
        assert numbers == list(range(200))


def test_states_in_the_order_of_events(records: LaunchRecords, sleeper: subprocess.Popen) -> None:
    records.write_launch({"jobs": [JOB]})

    def now() -> tuple[str, str]:
        (status,) = chain_status(records)
        return status.state, status.reason

    assert now() == ("pending", "")
    submitted(records, "fit", sleeper.pid)
    records.append("fit", "waiting", upstream="prepare")
    assert now() == ("pending", "waits for prepare")
    records.append("fit", "started")
    assert now() == ("running", "")
    records.append("fit", "ended", state="failed", reason="exit status 3", exit_code=3)
    assert now() == ("failed", "exit status 3")


@pytest.mark.parametrize(("cancelled", "state"), [(False, "failed"), (True, "cancelled")])
def test_a_job_that_vanished_is_told_from_its_process(
    records: LaunchRecords, sleeper: subprocess.Popen, cancelled: bool, state: str
) -> None:
    submitted(records, "fit", sleeper.pid)
    records.append("fit", "started")
    if cancelled:
        records.append(LAUNCH, "cancel_requested", stages=["fit"])
    assert job_status(records, "fit").state == "running"
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert job_status(records, "fit").state == state


def test_a_reused_process_id_is_not_the_job() -> None:
    me = ProcessId.of(os.getpid())
    assert me.is_alive()
    assert ProcessId.from_record(me.to_record()) == me
    earlier = ProcessId(me.pid, me.start_ticks - 1, me.boot_id, me.host)
    assert not earlier.is_alive()
    assert not earlier.send(signal.SIGKILL)  # or this test would be over
    assert not ProcessId(me.pid, me.start_ticks, "another boot", me.host).is_alive()
    elsewhere = ProcessId(me.pid, me.start_ticks, me.boot_id, "another host")
    assert elsewhere.is_alive()  # nothing can be told from here
    assert not elsewhere.send(signal.SIGKILL)


def test_a_process_name_with_parentheses_and_spaces(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 0 (b"
    program.symlink_to(sys.executable)
    process = subprocess.Popen([program, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert ProcessId.of(process.pid).is_alive()
    finally:
        process.communicate(b"\n")


def test_exit_status_in_words() -> None:
    assert exit_reason(3) == "exit status 3"
    assert exit_reason(137) == "killed by SIGKILL"
    assert exit_reason(255) == "exit status 255"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"launcher": 3}, "does not tell which process made it"),
        ({"launcher": {"pid": 3}}, "does not tell which process made it"),
        ({"jobs": 2}, "a stage stands in its list of jobs twice"),
        ("[" * 100_000, "cannot be read as a launch record"),
    ],
)
def test_a_damaged_launch_is_one_message(hostile_path: Path, damage: Any, message: str) -> None:
    records = LaunchRecords.create(hostile_path / "launch")
    job = dict.fromkeys(("stage", "output", "log", "metadata"), "fit")
    if isinstance(damage, str):
        (records.directory / "launch.json").write_text(damage)
    else:
        records.write_launch({"jobs": [job] * damage.pop("jobs", 1), **damage})
    with pytest.raises(RecordError, match=message):
        records.read_launch()


def test_an_event_is_shown_without_what_a_terminal_would_obey(hostile_path: Path) -> None:
    records = LaunchRecords.create(hostile_path / "launch")
    records.append("fit", "ended", state="failed", reason="\x1b]0;T\x07 \ud800", exit_code=1)
    with (records.directory / "events" / "fit.jsonl").open("a") as journal:
        journal.write("[" * 100_000 + "\n")
    events, damaged = records.events_and_damage("fit")
    assert [event["reason"] for event in events] == [r"\x1b]0;T\x07 \ud800"]
    assert damaged == 1


def test_a_job_process_lives_on_without_its_controller(
    records: LaunchRecords, sleeper: subprocess.Popen
) -> None:
    records.write_launch({"jobs": [JOB]})
    gone = subprocess.Popen(["sleep", "300"])
    controller = ProcessId.of(gone.pid)
    gone.kill()
    gone.wait()
    stage = JOB["stage"]
    records.append(LAUNCH, "submitted", stage=stage, job_id="7", process=controller.to_record())
    own = ProcessId.of(sleeper.pid)
    records.append(stage, "waiting", upstream="prepare", process=own.to_record())
    records.append(stage, "started")
    assert job_status(records, stage).state == "running"
    sleeper.kill()
    sleeper.wait()
    assert job_status(records, stage).state == "failed"


@pytest.mark.parametrize(
    ("last", "how"),
    [
        ("launcher.errors.RecordError: cannot write x: No space left", "cannot write x: No space"),
        ("OSError: [Errno 28] No space left on device", "OSError: [Errno 28] No space left"),
        ("submitit INFO (2026-11-24) - Loading pickle", "killed by SIGKILL, or the machine"),
    ],
)
def test_what_a_job_process_said_last_is_its_reason(
    records: LaunchRecords, last: str, how: str
) -> None:
    gone = subprocess.Popen(["true"])
    process = ProcessId.of(gone.pid).to_record()
    gone.wait()
    records.append(LAUNCH, "submitted", stage="fit", job_id="7", process=process)
    (records.directory / "submitit").mkdir()
    (records.directory / "submitit" / "7_0_log.out").write_text(f"Traceback\n{last}\n")
    reason = job_status(records, "fit").reason
    assert reason.startswith(f"its process is gone without a result: {how}")


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@pytest.mark.faults(DISK_FULL)
def test_the_last_words_have_room_on_a_full_disk(small_disk: Path) -> None:
    records = LaunchRecords.create(small_disk / "one")
    records.append("fit", "started", pad="x" * 5000)
    fill(small_disk)
    records.append("fit", "ended", state="failed", reason="x" * 5000, exit_code=1)  # in two blocks
    events, num_damaged = records.events_and_damage("fit")
    assert [(event["event"], num_damaged) for event in events] == [("started", 0), ("ended", 0)]
    fill(small_disk)
    with pytest.raises(RecordError, match="No space left"):
        records.append("fit", "ended", state="failed", reason="x" * 9000, exit_code=1)
    assert [event["event"] for event in records.events("fit")] == ["started", "ended"]


@pytest.mark.faults(DISK_FULL)
def test_a_launch_directory_that_has_no_room_is_not_left_half_made(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(RecordError, match=r"No space left.*launches_dir=PATH"):
        LaunchRecords.create(small_disk / "one")
    assert not (small_disk / "one").exists()
