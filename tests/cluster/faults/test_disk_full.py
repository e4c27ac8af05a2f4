"""Disks that become full while stages run: what was on record stays, and each end is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from launcher.status import JobStatus, chain_status
from tests.cluster.faults.table import DISK_FULL
from tests.cluster.slurm_launches import REPOSITORY, until
from tests.conftest import HOSTILE_NAME, lacks
from tests.launcher.conftest import write_recipe

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults(DISK_FULL)]


@contextmanager
def disk(path: Path, size: str = "16m") -> Iterator[Path]:
    """Have a file system of its own at a folder, with room for a launch directory."""
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        lacks(f"cannot mount a file system, which needs root: {mounted.stderr}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Leave no byte on a file system."""
    with (path / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def fill_page(records: LaunchRecords, journal: str) -> None:
    """Have a journal end where its last block does, or there would be room left in that."""
    path, page = records.directory / "events" / f"{journal}.jsonl", os.sysconf("SC_PAGE_SIZE")
    line = b'{"time": 1, "event": "note"}'
    with path.open("ab") as file:
        file.write(line.ljust(-path.stat().st_size % page + page - 1) + b"\n")
    assert path.stat().st_size % page == 0


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / HOSTILE_NAME / "tiny" / "asr")


def launch(recipe: Path, *arguments: str) -> LaunchRecords:
    """Launch the recipe; return when its first stage, which takes some seconds, has begun."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "--container", "none", *arguments],
        cwd=recipe,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_SLEEP_S": "8"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    until((recipe / "exp" / "tiny" / "prepare.pid").exists)
    return LaunchRecords(recipe / done.stdout.splitlines()[0].removeprefix("launch "))


def ended(records: LaunchRecords) -> dict[str, JobStatus]:
    until(lambda: all(status.has_ended for status in chain_status(records)), 120)
    return {status.stage: status for status in chain_status(records)}


def test_of_the_launch_directory(recipe: Path, tmp_path: Path) -> None:
    """The reserve has room for what the rest of the chain has to say."""
    with disk(tmp_path / "launches") as full:
        records = launch(recipe, f'launches_dir="{full}"')
        before = records.events("prepare")
        fill(full)
        told = ended(records)
        assert {stage: status.state for stage, status in told.items()} == dict.fromkeys(
            ("prepare", "fit", "score"), "done"
        )
        events, num_damaged = records.events_and_damage("prepare")
        assert (events[: len(before)], num_damaged) == (before, 0)


def test_of_the_launch_directory_when_the_reserve_is_gone(recipe: Path, tmp_path: Path) -> None:
    """No state is for ever, none is done without a word of it, and what was written stays."""
    with disk(tmp_path / "launches") as full:
        records = launch(recipe, f'launches_dir="{full}"')
        before = records.events("prepare")
        (records.directory / "reserve").unlink()
        fill_page(records, "prepare")
        fill(full)
        told = ended(records)
        assert [status.state for status in told.values()] == ["failed", "skipped", "skipped"]
        assert "its process is gone without a result" in told["prepare"].reason
        events, _ = records.events_and_damage("prepare")
        assert events[: len(before)] == before


def test_of_the_experiment_and_its_logs(recipe: Path) -> None:
    system = recipe / "src" / "tiny_system.py"
    says_much = "time.sleep(seconds)\n            print('x' * 200_000, flush=True)"
    system.write_text(system.read_text().replace("time.sleep(seconds)", says_much))
    with disk(recipe / "exp") as full:
        records = launch(recipe)
        said = (full / "tiny" / "prepare.out").read_bytes()
        fill(full)
        told = ended(records)
        assert (told["prepare"].state, told["prepare"].exit_code) == ("failed", 1)
        assert (told["score"].state, told["score"].reason) == ("skipped", "prepare failed")
        assert (full / "tiny" / "prepare.out").read_bytes().startswith(said)
        assert records.events_and_damage("prepare")[1] == 0
