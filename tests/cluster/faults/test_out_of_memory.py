"""Out of memory: the container's limit, a cgroup's, and what a stage says of it as it fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.table import OUT_OF_MEMORY
from tests.cluster.image_fixtures import CpuImage
from tests.cluster.rehearsed import Rehearsal, Slurm
from tests.cluster.slurm_launches import write_recipe
from tests.cluster.test_container_launches import REPOSITORY, Launches, in_git
from tests.conftest import HOSTILE_NAME, lacks

pytestmark = [pytest.mark.cluster, pytest.mark.faults(OUT_OF_MEMORY)]
CGROUPS_V1, CGROUPS_V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT_MIB = 600
# A stage of each kind: it takes what there is; a child of it does; it is refused by a library.
SYSTEM = """\
import os
import sys
import time

from espnet3.systems.base.system import BaseSystem

STAGES = ("takes", "loses", "refused", "cuda", "modest")


class TinySystem(BaseSystem):
    def __init__(self, **kwargs):
        super().__init__(
            stage_log_mapping={name: "training_config.exp_dir" for name in STAGES}, **kwargs
        )

    def takes(self):
        held = []
        while True:
            held.append(b"x" * 2**24)
            if len(held) > 4096 // 16:
                sys.exit(4)  # nobody has set a limit

    def loses(self):
        pid = os.fork()
        if pid == 0:
            self.takes()
        _, status = os.waitpid(pid, 0)
        raise RuntimeError(f"a worker has ended with {status}")

    def refused(self):
        import torch

        torch.empty(10**13)

    def cuda(self):
        import torch

        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 22.78 GiB. GPU 0 has a total capacity of 31.47 "
            "GiB of which 12.73 GiB is free. Including non-PyTorch memory, this process has 18.73 "
            "GiB memory in use."
        )

    def modest(self):
        held = b"x" * (100 * 2**20)
        time.sleep(1.5)
        return {"bytes": len(held)}
"""


@pytest.fixture
def launches(tmp_path: Path, rehearsal: Rehearsal, cpu_image: CpuImage) -> Iterator[Launches]:
    recipe = write_recipe(tmp_path / HOSTILE_NAME)
    (recipe / "src" / "tiny_system.py").write_text(SYSTEM)
    environment = {**os.environ, **rehearsal.environment, "PYTHONPATH": str(REPOSITORY)}
    made = Launches(in_git(recipe), environment, cpu_image.lock_file, cpu_image.cache_dir)
    yield made
    made.close()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """Return a memory cgroup of this host with a limit, as a scheduler makes one for a job."""
    root = CGROUPS_V1 if CGROUPS_V1.is_dir() else CGROUPS_V2
    folder = root / f"launcher-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if root == CGROUPS_V1 else "memory.max"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(LIMIT_MIB * 2**20))
    except OSError as error:
        lacks(f"cannot make a memory cgroup, which needs root: {error}")
    yield folder
    deadline = time.monotonic() + 20
    while (folder / "cgroup.procs").read_text().split() and time.monotonic() < deadline:
        time.sleep(0.1)
    folder.rmdir()


def failed(launches: Launches, stage: str, *arguments: str) -> str:
    """Launch one stage that is to fail; return the reason on record, once all tell the same one."""
    records = launches.launch("--stages", stage, *arguments)
    status = launches.wait(records)[stage]
    said = launches.file(stage, ".out").read_text(errors="replace")
    assert status.state == "failed", said
    metadata = launches.metadata(stage)
    assert metadata["job"]["reason"] == status.reason
    shown = subprocess.run(
        [sys.executable, "-m", "launcher", "status", str(records.directory)],
        cwd=launches.recipe,
        env=launches.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{stage} failed: {status.reason}" in shown.stdout
    return status.reason


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_a_container_at_its_limit(launches: Launches, runtime: str) -> None:
    limit = f"stages.takes.mem_gb={LIMIT_MIB / 1024}"
    reason = failed(launches, "takes", "--container", runtime, limit)
    assert re.fullmatch(
        r"out of memory: killed at its limit of 0.58\d+ GiB \(mem_gb\), "
        r"it had used (59\d|600) MiB; raise stages.takes.mem_gb",
        reason,
    )
    job = launches.metadata("takes")["job"]
    assert (job["exit_code"], job["signal"]) == (137, "SIGKILL")
    assert job["used"]["oom_kills"] == 1
    assert job["used"]["memory_from"] == "cgroup"
    assert launches.containers() == []


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_a_child_is_killed_and_the_stage_fails_of_it(launches: Launches, runtime: str) -> None:
    limit = f"stages.loses.mem_gb={LIMIT_MIB / 1024}"
    reason = failed(launches, "loses", "--container", runtime, limit)
    assert reason.startswith(
        "out of memory: exit status 1, after the kernel had killed one of its processes at its "
        "limit of 0.58"
    )


def test_a_limit_that_nobody_asked_the_launcher_for(launches: Launches, cgroup: Path) -> None:
    """As in a session, or a job, whose cgroup has one."""
    enter = 'echo $$ >"$0" && exec "$@"'
    launches.prefix = ("sh", "-c", enter, str(cgroup / "cgroup.procs"))
    reason = failed(launches, "takes", "--container", "none")
    assert reason.startswith(
        f"out of memory: killed at the limit of {LIMIT_MIB} MiB that its cgroup has "
        "(mem_gb was not set), it had used "
    )


def test_on_slurm_as_well(launches: Launches, slurm: Slurm) -> None:
    limit = f"stages.takes.mem_gb={LIMIT_MIB / 1024}"
    arguments = ("--cluster", "slurm", "--container", "docker", limit)
    assert failed(launches, "takes", *arguments).startswith(
        "out of memory: killed at its limit of 0.58"
    )


def test_what_a_library_was_refused_is_said_with_figures(launches: Launches) -> None:
    reason = failed(launches, "refused", "--container", "none")
    assert re.fullmatch(
        r"out of memory: the machine refused 37252.9 GiB more, it had used \d+ MiB; "
        r"ask for more with stages.refused.mem_gb, or use a smaller batch",
        reason,
    )


def test_what_a_gpu_refused_is_said_with_figures(launches: Launches) -> None:
    """In PyTorch's words: the rehearsal has no GPU to be filled."""
    assert failed(launches, "cuda", "--container", "docker") == (
        "out of memory on GPU 0 (CUDA): 22.78 GiB more were asked for, 12.73 GiB of 31.47 GiB were "
        "free; use a smaller batch, or a GPU with more memory"
    )


@pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer", "charliecloud", "none"])
def test_what_a_stage_used_is_on_record(launches: Launches, runtime: str) -> None:
    limit = ["stages.modest.mem_gb=2"] if runtime in ("docker", "podman") else []
    records = launches.launch("--stages", "modest", "--container", runtime, *limit)
    assert launches.wait(records)["modest"].state == "done"
    used = launches.metadata("modest")["job"]["used"]
    assert 0.098 < used["peak_memory_gb"] < 1
    assert used["memory_from"] == ("cgroup" if limit else "processes")
    assert used.get("memory_limit_gb") == (2 if limit else None)
    assert 0 < used["cpu_s"] < 60
    assert used["wall_s"] > 1.5
    assert used["oom_kills"] == 0
    (ended,) = (each for each in records.events("modest") if each["event"] == "ended")
    assert ended["used"] == used
