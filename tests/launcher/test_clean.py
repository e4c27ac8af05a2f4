"""What ``clean`` removes, and what it leaves alone."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.clean.containers import why_orphaned
from launcher.clean.launches import SeenLaunch, look_at, old_launches, open_because, why_kept
from launcher.clean.scratch import left_scratch, unused_roots
from launcher.commands.clean import age_s, size
from launcher.config import load_config, to_record
from launcher.containers.base import FoundContainer
from launcher.errors import UsageError
from launcher.launch import DIRECTORY_LABEL, LAUNCH_LABEL, SHELL_LABEL, STAGE_LABEL, container_name
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords
from tests.launcher.conftest import Launcher

DAY_S = 86400.0


def write_launch(folder: Path, name: str, *, age_days: float, **more: object) -> LaunchRecords:
    """Return a launch of one stage that was done so many days ago."""
    records = LaunchRecords.create(folder / name)
    files = {
        key: f"/nonexistent/fit{suffix}"
        for key, suffix in (("output", ".out"), ("log", ".log"), ("metadata", ".metadata.json"))
    }
    created = time.time() - age_days * DAY_S
    config = to_record(load_config({}, []))
    job = {"stage": "fit", "after": None, **files}
    records.write_launch({"jobs": [job], "config": config, "created": created, **more})
    write_event(records, LAUNCH, created, "submitted", stage="fit", job_id="7")
    end(records, created)
    (records.directory / "snapshot").mkdir()
    (records.directory / "snapshot" / "code.py").write_bytes(b"x" * 100_000)
    return records


def write_event(
    records: LaunchRecords, journal: str, at_s: float, event: str, **more: object
) -> None:
    with (records.directory / "events" / f"{journal}.jsonl").open("a") as file:
        file.write(json.dumps({"time": at_s, "event": event, **more}) + "\n")


def end(records: LaunchRecords, at_s: float) -> None:
    write_event(records, "fit", at_s, "ended", state="done", reason="", exit_code=0)


def old(folder: Path, *, days: float = 30, keep: int = 0) -> tuple[set[str], dict[str, str]]:
    found, kept = old_launches(folder, older_than_s=days * DAY_S, keep=keep, now_s=time.time())
    return {each.name for each in found}, {path.name: why for path, why in kept.items()}


@pytest.fixture
def folder(hostile_path: Path) -> Path:
    return hostile_path / ".launches"


def test_what_ended_long_ago_can_go(folder: Path) -> None:
    write_launch(folder, "old", age_days=31)
    write_launch(folder, "young", age_days=29)
    assert old(folder) == ({"old"}, {"young": "too young"})
    assert old(folder, days=0) == ({"old", "young"}, {})
    assert old(folder, days=0, keep=1) == ({"old"}, {"young": "one of the latest 1"})
    assert old(folder / "absent") == (set(), {})


def test_what_has_not_ended_or_cannot_be_told_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))  # no SLURM answers here
    opened = write_launch(folder, "open", age_days=40)
    (opened.directory / "events" / "fit.jsonl").unlink()
    process = ProcessId.of(os.getpid()).to_record()
    (opened.directory / "events" / "launch.jsonl").unlink()
    write_event(opened, LAUNCH, 1.0, "submitted", stage="fit", job_id="7", process=process)
    damaged = write_launch(folder, "damaged", age_days=40)
    (damaged.directory / "launch.json").write_text("{")
    elsewhere = write_launch(
        folder,
        "elsewhere",
        age_days=40,
        config=to_record(load_config({"cluster": "slurm"}, [])),
    )
    (elsewhere.directory / "events" / "fit.jsonl").unlink()
    removed, kept = old(folder)
    assert removed == set()
    assert kept["open"] == "it has not ended: fit is pending"
    assert "cannot be read as a launch record" in kept["damaged"]
    assert "slurm.conf, and there is no such file" in kept["elsewhere"]


def test_what_a_kept_launch_refers_to_stays(folder: Path) -> None:
    for name, age_days, resumes in (("a", 60, None), ("b", 50, "a"), ("c", 1, "b"), ("d", 55, "a")):
        earlier = str(folder / resumes) if resumes else None
        write_launch(folder, name, age_days=age_days, resumes=earlier)
    removed, kept = old(folder)
    assert removed == {"d"}
    assert kept == {"a": "b refers to it", "b": "c refers to it", "c": "too young"}


def test_an_event_refers_to_a_launch_too(folder: Path) -> None:
    first = write_launch(folder, "first", age_days=1)
    write_launch(folder, "second", age_days=50)
    write_event(first, LAUNCH, 1.0, "resumed_by", launch=str(folder / "second"))
    assert folder / "second" in look_at(first.directory).refers_to
    assert old(folder)[0] == set()


def test_the_scheduler_is_asked_only_of_what_would_go() -> None:
    asked = []

    def why_open(directory: Path) -> str:
        asked.append(directory.name)
        return ""

    seen = [SeenLaunch(Path(f"/launches/{number}"), number * DAY_S) for number in range(4)]
    kept = why_kept(seen, older_than_s=2 * DAY_S, keep=1, now_s=4 * DAY_S, why_open=why_open)
    assert asked == ["2", "1", "0"]
    assert list(kept) == [Path("/launches/3")]


def test_what_is_no_launch_directory_stays(folder: Path, tmp_path: Path) -> None:
    target = write_launch(tmp_path / "elsewhere", "real", age_days=50).directory
    folder.mkdir()
    (folder / "link").symlink_to(target)
    (folder / "notes").mkdir()
    (folder / "notes" / "thesis.tex").write_text("mine")
    (folder / "a file").write_text("mine")
    linked = folder / "linked record"
    linked.mkdir()
    (linked / "launch.json").symlink_to(target / "launch.json")
    assert old(folder) == (
        set(),
        {
            "link": "a link, which is not followed",
            "notes": "no launch directory",
            "linked record": "no launch directory",
        },
    )


def test_of_a_launcher_killed_while_it_copied_only_the_rest_goes(folder: Path) -> None:
    records = LaunchRecords.create(folder / "cut short")
    (records.directory / "snapshot").mkdir()
    assert old(folder)[0] == set()  # it may be copying still
    for each in (*records.directory.iterdir(), records.directory):
        os.utime(each, (1e9, 1e9))
    assert old(folder)[0] == {"cut short"}
    (records.directory / "thesis.tex").write_text("mine")
    os.utime(records.directory, (1e9, 1e9))
    assert old(folder)[0] == set()


def test_an_ended_launch_has_no_reason_to_stay(folder: Path) -> None:
    assert open_because(write_launch(folder, "one", age_days=1).directory) == ""


@pytest.mark.parametrize(
    ("labels", "uid", "why"),
    [
        ({DIRECTORY_LABEL: "{gone}"}, 1000, "its launch directory is gone"),
        ({DIRECTORY_LABEL: "{gone}"}, None, "its launch directory is gone"),
        ({DIRECTORY_LABEL: "{gone}"}, 1001, ""),  # another user's
        ({DIRECTORY_LABEL: "/nowhere/launches/one"}, 1000, ""),  # its file system may be away
        ({DIRECTORY_LABEL: "{there}"}, 1000, "fit has ended"),
        ({DIRECTORY_LABEL: "{there}", STAGE_LABEL: "score"}, 1000, ""),
        ({}, 1000, "fit has ended"),  # an older launcher's: told by its name
        ({DIRECTORY_LABEL: "{there}", SHELL_LABEL: "{me}"}, 1000, ""),
        ({DIRECTORY_LABEL: "{there}", SHELL_LABEL: "{dead}"}, 1000, "the shell that it was for is"),
        ({DIRECTORY_LABEL: "{there}", SHELL_LABEL: "nonsense"}, 1000, ""),
    ],
)
def test_containers_that_nobody_stands_over(
    hostile_path: Path, labels: dict[str, str], uid: int | None, why: str
) -> None:
    there = hostile_path / "one"
    there.mkdir()
    me = ProcessId.of(os.getpid())
    texts = {
        "{gone}": str(hostile_path / "gone"),
        "{there}": str(there),
        "{me}": json.dumps(me.to_record()),
        "{dead}": json.dumps({**me.to_record(), "start_ticks": 1}),
    }
    all_labels = {LAUNCH_LABEL: "one", STAGE_LABEL: "fit"}
    all_labels |= {name: texts.get(text, text) for name, text in labels.items()}
    container = FoundContainer(container_name(there, "fit"), all_labels, uid)
    told = why_orphaned(container, hostile_path, 1000, lambda where, stage: stage == "fit")
    assert told.startswith(why)
    assert bool(told) == bool(why)


def test_scratch_folders_that_no_job_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("launcher-0123abcd-one.fit", "launcher-0123abcd-held.fit", "launcher-gpus"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1e9, 1e9))
    (tmp_path / "launcher-0123abcd-new.fit").mkdir()
    (tmp_path / "launcher-0123abcd-link.fit").symlink_to(tmp_path / "launcher-gpus")
    descriptor = os.open(tmp_path / "launcher-0123abcd-held.fit", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def names() -> list[str]:
        found = left_scratch(now_s=time.time())
        return [Path(each.name).name for each in found if each.name.startswith(str(tmp_path))]

    assert names() == ["launcher-0123abcd-one.fit"]
    os.close(descriptor)
    assert names() == ["launcher-0123abcd-held.fit", "launcher-0123abcd-one.fit"]


def test_unpacked_images_that_no_run_can_use(tmp_path: Path) -> None:
    image = tmp_path / "sha256-ab.sqsh"
    image.write_bytes(b"image")
    told = image.stat()
    current = f"{image.name}.{told.st_size:x}-{told.st_mtime_ns:x}.unpacked"
    for name in (current, f"{current}.changed-1f", "sha256-cd.sqsh.5-1.unpacked", "mine.unpacked"):
        (tmp_path / name).mkdir()
    later_s = time.time() + 31 * DAY_S
    found = unused_roots(tmp_path, older_than_s=30 * DAY_S, now_s=later_s)
    assert {Path(each.name).name for each in found} == {
        f"{current}.changed-1f",
        "sha256-cd.sqsh.5-1.unpacked",
    }
    assert unused_roots(tmp_path, older_than_s=30 * DAY_S, now_s=time.time()) == []


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY_S), ("12h", 43200.0), ("0d", 0.0)])
def test_ages(text: str, seconds: float) -> None:
    assert age_s(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", "nan"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="such as 30d"):
        age_s(text)


def test_sizes() -> None:
    assert [size(each) for each in (0, 999, 123_456, 5_000_000, 12_300_000_000)] == [
        *("0 B", "999 B", "123 kB", "5 MB", "12.3 GB")
    ]


def test_the_command(recipe_dir: Path, launcher: Launcher) -> None:
    folder = recipe_dir / ".launches"
    outside = recipe_dir / "precious"
    outside.mkdir()
    (outside / "model.ckpt").write_bytes(b"x")
    first = write_launch(folder, "old", age_days=40).directory
    (first / "snapshot" / "data").symlink_to(outside)
    (first / "home").mkdir()
    (first / "home" / "sealed").mkdir()
    (first / "home" / "sealed" / "module").write_bytes(b"x")
    (first / "home" / "sealed").chmod(0o500)
    write_launch(folder, "young", age_days=3)
    where = ("--recipe", str(recipe_dir), "--older-than", "30d")
    shown = launcher("clean", *where, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "old\n" in shown.stdout
    assert "ended 40 days ago" in shown.stdout
    assert "kept: young, too young" in shown.stdout
    refused = launcher("clean", *where)
    assert (refused.returncode, first.is_dir()) == (1, True)
    assert "Add --yes" in refused.stderr
    # The containers of this machine are none of this test's.
    done = launcher("clean", *where, "--yes", PATH=str(recipe_dir), DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 0, done.stderr
    assert "removed " in done.stdout
    assert sorted(each.name for each in folder.iterdir()) == ["young"]
    assert (outside / "model.ckpt").exists()


def test_a_scratch_folder_is_held_while_it_is_used(tmp_path: Path) -> None:
    code = (
        "import sys; from launcher.job.scratch import scratch\n"
        "with scratch('launcher-0123abcd-x') as folder: print(folder, flush=True); input()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        assert user.stdout is not None
        folder = Path(user.stdout.readline().strip())
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        user.kill()
        user.wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
