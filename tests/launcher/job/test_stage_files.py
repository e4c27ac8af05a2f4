"""The files of a stage run, as the launcher and the stage framework name them together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from espnet3.utils import stage_files as framework
from launcher.display.render import Row
from launcher.job.stage_files import (
    OUTPUT_INODE,
    close_metadata,
    locate_output,
    open_output,
    update_job_metadata,
    write_job_metadata,
)
from launcher.results import read_metadata
from launcher.status import JobStatus


def launched(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a stage as a job does, up to where it would be killed; return its output's inode."""
    with open_output(folder / "train.out") as output:
        output.write(name.encode())
    inode = (folder / "train.out").stat().st_ino
    monkeypatch.setenv(OUTPUT_INODE, str(inode))
    run(folder, name)
    monkeypatch.delenv(OUTPUT_INODE)
    return inode


def run(folder: Path, name: str) -> None:
    start = "2026-11-22T14:00:00.000+00:00"
    metadata = {"run": name, "state": "running", "start_time": start}
    files = framework.StageFiles(folder, "train", metadata)
    files.stream.write(name)
    files.close()


def contents(folder: Path, suffix: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob(f"*{suffix}")}


def test_launched_and_direct_runs_number_their_files_alike(
    hostile_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_path / "new"
    launched(folder, "one", monkeypatch)
    run(folder, "two")
    run(folder, "three")
    launched(folder, "four", monkeypatch)
    launched(folder, "five", monkeypatch)
    with open_output(folder / "train.out") as output:
        output.write(b"six, killed before it had a log")
    assert contents(folder, ".log") == {
        "train1.log": "one",
        "train2.log": "two",
        "train3.log": "three",
        "train4.log": "four",
        "train5.log": "five",
    }
    assert contents(folder, ".out") == {
        "train1.out": "one",
        "train4.out": "four",
        "train5.out": "five",
        "train.out": "six, killed before it had a log",
    }
    for path in folder.glob("*.metadata.json"):
        log = path.with_name(path.name.removesuffix(".metadata.json") + ".log")
        assert json.loads(path.read_text())["run"] == log.read_text()


def test_the_lock_is_the_one_of_the_framework(tmp_path: Path) -> None:
    open_output(tmp_path / "train.out").close()
    framework.StageFiles(tmp_path, "train").close()
    assert [path.name for path in tmp_path.glob(".*")] == [".train.lock"]


def test_an_output_is_found_under_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = launched(tmp_path, "one", monkeypatch)
    assert locate_output(tmp_path / "train.out", inode) == tmp_path / "train.out"
    run(tmp_path, "two")
    assert locate_output(tmp_path / "train.out", inode) == tmp_path / "train1.out"
    (tmp_path / "train1.out").unlink()
    assert locate_output(tmp_path / "train.out", inode) is None


def test_metadata_of_a_killed_run_is_closed_whatever_its_name_is_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = launched(tmp_path, "killed", monkeypatch)
    run(tmp_path, "later")
    output = tmp_path / "train.out"
    close_metadata(output, inode, state="failed", exit_code=137, reason="killed by SIGKILL")
    closed = json.loads((tmp_path / "train1.metadata.json").read_text())
    assert (closed["run"], closed["state"]) == ("killed", "failed")
    message = "killed by SIGKILL; recorded by its job"
    assert closed["exit"] == {"status": 137, "signal": "SIGKILL", "message": message}
    assert closed["elapsed_s"] > 0
    assert closed["end_time"] > closed["start_time"]
    assert json.loads((tmp_path / "train.metadata.json").read_text())["state"] == "running"
    assert not list(tmp_path.glob(".*partial*"))


def test_metadata_that_says_how_the_stage_ended_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = launched(tmp_path, "one", monkeypatch)
    path = tmp_path / "train.metadata.json"
    for content in ('{"state": "done"}', '{"state": "runn', "[]"):
        path.write_text(content)
        close_metadata(
            tmp_path / "train.out", inode, state="failed", exit_code=1, reason="exit status 1"
        )
        assert path.read_text() == content


class StageRun:
    """A stage run as a job goes through it; the framework runs in this process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.name = folder / "train.out", name
        with open_output(self.path) as output:
            output.write(name.encode())
            self.inode = os.fstat(output.fileno()).st_ino
        write_job_metadata(self.path, self.inode, {"id": name, "node": "node 7"})

    @contextmanager
    def framework(self) -> Iterator[framework.StageFiles]:
        """Start the framework as a stage of this job does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(OUTPUT_INODE, str(self.inode))
            files = framework.StageFiles(self.path.parent, "train", self.told("running"))
        files.stream.write(self.name)
        files.stream.flush()
        try:
            yield files
        finally:
            files.close()

    def told(self, state: str) -> dict[str, Any]:
        start = "2026-11-22T14:00:00.000+00:00"
        own = {"SLURM_JOB_ID": "3"}
        return {"run": self.name, "state": state, "start_time": start, "job": own}

    def close(self, exit_code: int | None = 0, **job: Any) -> None:
        state, reason = ("failed", "it broke") if exit_code != 0 else ("done", "")
        close_metadata(
            self.path, self.inode, state=state, exit_code=exit_code, reason=reason, job=job
        )

    @property
    def file(self) -> Path:
        output = locate_output(self.path, self.inode)
        assert output is not None
        return output.with_suffix(".metadata.json")

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())


def triples(folder: Path) -> dict[str, str]:
    """Return stem → run, having checked that log, output and metadata tell of the same run."""
    found = {}
    for output in folder.glob("*.out"):
        metadata = json.loads(output.with_suffix(".metadata.json").read_text())
        assert metadata["job"]["id"] == output.read_text() == output.with_suffix(".log").read_text()
        found[output.stem] = output.read_text()
    assert len(found) == len(list(folder.glob("*.log"))) == len(list(folder.glob("*.json")))
    return found


def test_a_stage_that_never_starts_leaves_metadata_that_says_why(tmp_path: Path) -> None:
    run = StageRun(tmp_path, "one")
    begun = run.metadata
    assert (begun["state"], begun["stage"]) == ("starting", "train")
    assert begun["job"]["output_inode"] == run.inode
    assert begun["job"]["node"] == "node 7"
    update_job_metadata(run.path, run.inode, {"image": "sha256:12", "node": "node 8"})
    close_metadata(
        run.path, run.inode, state="failed", exit_code=None, reason="no such image", job={}
    )
    closed = run.metadata
    assert closed["state"] == "failed"
    assert closed["exit"] == {"status": None, "message": "no such image; recorded by its job"}
    assert closed["elapsed_s"] >= 0
    assert (closed["job"]["image"], closed["job"]["node"]) == ("sha256:12", "node 8")
    assert closed["job"]["end_time"] == closed["end_time"] >= closed["start_time"]


def test_the_framework_takes_the_metadata_of_its_job_over(hostile_path: Path) -> None:
    run = StageRun(hostile_path, "one")
    with run.framework() as files:
        assert [path.name for path in hostile_path.glob("*.json")] == ["train.metadata.json"]
        assert (run.metadata["state"], run.metadata["run"]) == ("running", "one")
        # What the job says meanwhile is kept by what the framework writes afterwards.
        update_job_metadata(run.path, run.inode, {"container": "c1"})
        assert run.metadata["run"] == "one"
        files.write_metadata({**run.told("done"), "results": {"loss": 1}})
    run.close(node_end="node 7")
    closed = run.metadata
    assert (closed["state"], closed["results"], "exit" in closed) == ("done", {"loss": 1}, False)
    expected = {"SLURM_JOB_ID": "3", "id": "one", "container": "c1", "node_end": "node 7"}
    assert expected.items() <= closed["job"].items()
    assert closed["job"]["exit_code"] == 0
    assert triples(hostile_path) == {"train": "one"}


def test_a_stage_killed_while_it_runs_is_closed_by_its_job(tmp_path: Path) -> None:
    run = StageRun(tmp_path, "killed")
    with run.framework():
        run.close(137)
    assert (run.metadata["state"], run.metadata["run"]) == ("failed", "killed")
    assert run.metadata["exit"]["signal"] == run.metadata["job"]["signal"] == "SIGKILL"


def test_a_run_that_is_overtaken_before_it_has_a_log_comes_to_its_own(tmp_path: Path) -> None:
    slow = StageRun(tmp_path, "slow")
    fast = StageRun(tmp_path, "fast")
    assert slow.file.name == "train1.metadata.json"
    with fast.framework() as fast_files, slow.framework() as slow_files:
        assert slow.file.name == "train.metadata.json"
        update_job_metadata(slow.path, slow.inode, {"said": "slow"})
        update_job_metadata(fast.path, fast.inode, {"said": "fast"})
        fast_files.write_metadata(fast.told("done"))
        fast.close()
        slow_files.write_metadata(slow.told("done"))
        slow.close()
    assert triples(tmp_path) == {"train": "slow", "train2": "fast"}
    for run in (slow, fast):
        assert (run.metadata["run"], run.metadata["job"]["said"]) == (run.name, run.name)
        assert run.metadata["job"]["output_inode"] == run.inode


def test_a_direct_run_in_between_takes_nothing_of_a_job(tmp_path: Path) -> None:
    launched_run = StageRun(tmp_path, "launched")
    run(tmp_path, "direct")
    assert launched_run.file.name == "train1.metadata.json"
    assert "job" not in json.loads((tmp_path / "train.metadata.json").read_text())
    with launched_run.framework():
        launched_run.close()
    assert contents(tmp_path, ".log") == {"train.log": "launched", "train2.log": "direct"}
    assert json.loads((tmp_path / "train2.metadata.json").read_text())["run"] == "direct"
    assert launched_run.metadata["job"]["id"] == "launched"


def test_a_stage_run_twice_in_one_job_keeps_both_records(tmp_path: Path) -> None:
    job = StageRun(tmp_path, "job")
    for name in ("first", "second"):
        with job.framework() as files:
            files.write_metadata({**job.told("done"), "run": name})
    job.close()
    first = json.loads((tmp_path / "train1.metadata.json").read_text())
    assert (first["run"], job.metadata["run"]) == ("first", "second")
    assert first["job"]["id"] == job.metadata["job"]["id"] == "job"


@pytest.mark.parametrize("content", [None, '{"state": "runn', "[]", '{"job": 3}', '{"job": {}}'])
def test_missing_or_damaged_metadata_is_written_anew(tmp_path: Path, content: str | None) -> None:
    def damage() -> None:
        if content is None:
            job.file.unlink(missing_ok=True)
        else:
            job.file.write_text(content)

    job = StageRun(tmp_path, "job")
    with job.framework() as files:
        damage()
        files.write_metadata(job.told("running"))  # the framework has read what the job said
    assert (job.metadata["run"], job.metadata["job"]["id"]) == ("job", "job")
    damage()
    job.close(1, id="job")
    assert job.metadata["job"]["exit_code"] == 1
    assert job.metadata["job"]["id"] == "job"
    if content is None or "job" not in content:
        assert (job.metadata["state"], job.metadata["stage"]) == ("failed", "train")


def test_files_that_somebody_deleted_do_not_come_back(tmp_path: Path) -> None:
    job = StageRun(tmp_path, "job")
    for path in tmp_path.glob("train*"):
        path.unlink()
    update_job_metadata(job.path, job.inode, {"image": "x"})
    job.close()
    assert list(tmp_path.glob("train*")) == []


def upstream_run(folder: Path, name: str) -> None:
    """Log as a framework that knows no metadata: an earlier log alone takes the next number."""
    log = folder / "train.log"
    if log.exists():
        number = 1
        while (numbered := folder / f"train{number}.log").exists():
            number += 1
        log.rename(numbered)
    log.write_text(name)


def test_of_a_framework_without_metadata_the_job_tells_how_it_ended(tmp_path: Path) -> None:
    for name, exit_code in (("one", 0), ("two", 3), ("three", 143), ("four", 0)):
        job = StageRun(tmp_path, name)
        upstream_run(tmp_path, name)
        job.close(exit_code)
    assert triples(tmp_path) == {
        "train1": "one",
        "train2": "two",
        "train3": "three",
        "train": "four",
    }
    states = {}
    for stem in triples(tmp_path):
        metadata = json.loads((tmp_path / f"{stem}.metadata.json").read_text())
        states[stem] = metadata["state"]
        assert metadata["elapsed_s"] >= 0
        assert metadata["end_time"] >= metadata["start_time"]
    assert states == {"train1": "done", "train2": "failed", "train3": "failed", "train": "done"}
    metadata = json.loads((tmp_path / "train2.metadata.json").read_text())
    assert metadata["exit"] == {"status": 3, "message": "it broke; recorded by its job"}
    metadata = json.loads((tmp_path / "train.metadata.json").read_text())
    assert metadata["exit"] == {"status": 0, "message": "recorded by its job"}


def test_a_log_that_was_renamed_alone_is_joined_by_the_rest_of_its_run(tmp_path: Path) -> None:
    """Upstream's framework, run without a launcher after a launched run, renames only the log."""
    for name in ("one", "two"):
        job = StageRun(tmp_path, name)
        upstream_run(tmp_path, name)
        job.close()
    upstream_run(tmp_path, "direct")
    upstream_run(tmp_path, "direct again")
    job = StageRun(tmp_path, "three")
    upstream_run(tmp_path, "three")
    job.close()
    for name in ("train3.log", "train4.log"):
        assert (tmp_path / name).read_text().startswith("direct")
        (tmp_path / name).unlink()
    assert triples(tmp_path) == {"train1": "one", "train2": "two", "train": "three"}


def test_a_log_that_was_deleted_leaves_its_number_to_the_rest_of_its_run(tmp_path: Path) -> None:
    job = StageRun(tmp_path, "one")
    upstream_run(tmp_path, "one")
    job.close()
    (tmp_path / "train.log").unlink()
    (tmp_path / "train.log").write_text("somebody else's")
    StageRun(tmp_path, "two")
    assert contents(tmp_path, ".log") == {"train2.log": "somebody else's"}
    assert contents(tmp_path, ".out") == {"train1.out": "one", "train.out": "two"}


def run_jobs(folder: Path, label: str, *, count: int) -> None:
    for number in range(count):
        job = StageRun(folder, f"{label}-{number}")
        with job.framework() as files:
            for step in range(3):
                update_job_metadata(job.path, job.inode, {f"step{step}": step})
                files.write_metadata({**job.told("running"), "step": step})
            files.write_metadata(job.told("done"))
        job.close()


def test_jobs_in_one_folder_at_once_lose_and_mix_nothing(hostile_path: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "from pathlib import Path; import test_stage_files as t\n"
        "t.run_jobs(Path(sys.argv[1]), sys.argv[2], count=8)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(hostile_path), str(number)])
        for number in range(4)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    found = triples(hostile_path)
    assert sorted(found.values()) == sorted(f"{p}-{k}" for p in range(4) for k in range(8))
    assert "train" in found
    for stem, name in found.items():
        metadata = json.loads((hostile_path / f"{stem}.metadata.json").read_text())
        assert (metadata["run"], metadata["state"]) == (name, "done")
        assert {"step0": 0, "step1": 1, "step2": 2, "exit_code": 0}.items() <= metadata[
            "job"
        ].items()
    assert not list(hostile_path.glob(".*partial*"))


def test_the_launcher_shows_a_stage_that_is_starting(tmp_path: Path) -> None:
    job = StageRun(tmp_path, "one")
    record = {
        name: str(tmp_path / f"train{suffix}")
        for name, suffix in (("output", ".out"), ("log", ".log"), ("metadata", ".metadata.json"))
    }

    def row(state: str) -> Row:
        return Row.of(JobStatus("train", state, started=0.0, output_inode=job.inode), record)

    assert read_metadata(job.file, output_inode=job.inode)["state"] == "starting"
    running = row("running")
    assert (running.results, running.message, running.shown_state) == ({}, "", "running")
    assert running.shown_log.endswith("train.out")
    job.close(1)
    assert row("failed").message == "it broke; recorded by its job"
    assert row("done").results == {}
