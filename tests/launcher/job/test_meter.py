"""What a stage used: memory cgroups of both versions, and what is recorded of the findings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.job import meter
from launcher.job.meter import Cgroup, Meter, find_cgroup
from launcher.job.used import UseWatch, read_used, sample_gpus

MIB = 2**20


def make_v1(folder: Path, *, limit: int, kills: int = 0, procs: str = "") -> Path:
    """Write a memory cgroup as version 1 shows it."""
    folder.mkdir(parents=True)
    files = {
        "memory.usage_in_bytes": 500 * MIB,
        "memory.max_usage_in_bytes": 800 * MIB,
        "memory.limit_in_bytes": limit,
        "memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}",
        "memory.stat": f"cache 1\ntotal_inactive_file {300 * MIB}\ntotal_active_file {MIB}",
        "cgroup.procs": procs,
    }
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def make_v2(folder: Path, *, limit: str, kills: int = 0, procs: str = "") -> Path:
    """Write a memory cgroup as version 2 shows it."""
    folder.mkdir(parents=True)
    files = {
        "memory.current": 500 * MIB,
        "memory.peak": 800 * MIB,
        "memory.max": limit,
        "memory.events": f"low 0\nhigh 0\nmax 12\noom 1\noom_kill {kills}\noom_group_kill 0",
        "memory.stat": f"anon 7\ninactive_file {300 * MIB}\nactive_file {MIB}",
        "cgroup.procs": procs,
    }
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


@pytest.fixture(params=["v1", "v2"])
def cgroup(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a job's cgroup with one for its step below it, and the folder of all as its root."""
    if request.param == "v1":
        make_v1(tmp_path / "job", limit=4096 * MIB)
        folder = make_v1(tmp_path / "job" / "step", limit=2**63 - 4096, kills=2, procs="1\n7")
        monkeypatch.setattr(meter, "_V1", tmp_path)
    else:
        make_v2(tmp_path / "job", limit=str(4096 * MIB))
        folder = make_v2(tmp_path / "job" / "step", limit="max", kills=2, procs="1\n7")
        monkeypatch.setattr(meter, "_V2", tmp_path)
    return folder


def test_a_cgroup_of_either_version_is_read(cgroup: Path, tmp_path: Path) -> None:
    found = Cgroup(cgroup, tmp_path)
    assert found.is_part()
    assert found.held_bytes() == 199 * MIB  # without 301 of cached files
    assert found.peak_bytes() == 800 * MIB
    assert found.oom_kills() == 2
    assert found.limit_bytes() == 4096 * MIB  # of the one above it


def test_a_cgroup_is_a_stages_own_when_nobody_else_is_in_it(cgroup: Path, tmp_path: Path) -> None:
    found = Cgroup(cgroup, tmp_path)
    assert found.is_of({1, 7, 8})
    assert not found.is_of({1, 8})
    assert not Cgroup(tmp_path / "none", tmp_path).is_of({1})


def test_the_machines_own_cgroup_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_v1(tmp_path / "v1", limit=2**63 - 4096) / "release_agent").touch()
    monkeypatch.setattr(meter, "_V1", tmp_path / "v1")
    assert not Cgroup(tmp_path / "v1", tmp_path / "v1").is_part()
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "memory.stat").write_text("anon 7\n")
    assert not Cgroup(tmp_path / "v2", tmp_path / "v2").is_part()


def test_this_processs_cgroup_is_found_where_it_has_one() -> None:
    found = find_cgroup()
    if found is not None:
        assert str(os.getpid()) in (found.folder / "cgroup.procs").read_text().split()


def test_where_nothing_can_be_measured_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "find_cgroup", lambda: None)
    Meter(tmp_path / "used", lambda: [2**22 + 1]).finish()
    assert json.loads((tmp_path / "used").read_text())["memory_limit_bytes"] is None
    Meter(tmp_path / "no" / "used", list).finish()


def test_findings_become_what_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "used"
    found = {"wall_s": 1.23456, "cpu_s": 2, "peak_memory_bytes": 3 * 2**29, "oom_kills": 1}
    file.write_text(json.dumps({**found, "memory_limit_bytes": None, "memory_from": "cgroup"}))
    assert read_used(file) == {
        "wall_s": 1.235,
        "cpu_s": 2,
        "peak_memory_gb": 1.5,
        "memory_from": "cgroup",
        "oom_kills": 1,
    }
    assert not file.exists()


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"cpu_s": "a", "wall_s": NaN, "memory_from": 7}', '{"cpu_s": -1}']
)
def test_findings_that_are_no_numbers_are_left_out(tmp_path: Path, damage: str) -> None:
    (tmp_path / "used").write_text(damage)
    assert read_used(tmp_path / "used") == {}
    assert read_used(tmp_path / "none") == {}


def test_an_earlier_attempts_findings_are_not_this_ones(tmp_path: Path) -> None:
    (tmp_path / "used").write_text('{"cpu_s": 99}')
    with UseWatch(tmp_path / "used", ()) as watch:
        pass
    assert set(watch.used) == {"wall_s"}


def test_gpus_are_those_that_the_stage_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\necho "90, 2048"\necho "50, 1024"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert sample_gpus(["1", "3"]) == [(90.0, 2.0), (50.0, 1.0)]
    assert (tmp_path / "asked").read_text() == "--id=1,3\n"
    program.write_text("#!/bin/sh\necho '[N/A], [N/A]'\n")
    assert sample_gpus(["1"]) == []
    program.write_text("#!/bin/sh\nexit 9\n")
    assert sample_gpus(["1"]) == []
