"""That a stage failed for want of memory is said, with figures, of texts that libraries wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.job.out_of_memory import ended_by_scheduler, out_of_memory
from launcher.output import last_failure

ADVICE = "use a smaller batch, or a GPU with more memory"
# As PyTorch 1.9, 2.1 and 2.6 wrote it.
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 2.26 GiB (GPU 0; 6.00 GiB total capacity; "
    "781.59 MiB already allocated; 3.03 GiB free; 1.24 GiB reserved in total by PyTorch)"
)
MISSPELT = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 27.12 GiB. GPU 3 has a "
    "total capacty of 11.99 GiB of which 0 bytes is free. Of the allocated memory 16.16 GiB is "
    "allocated by PyTorch, and 144.59 MiB is reserved by PyTorch but unallocated."
)
NEW = (
    "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.78 GiB. GPU 1 has a "
    "total capacity of 31.47 GiB of which 12.73 GiB is free. Including non-PyTorch memory, this "
    "process has 18.73 GiB memory in use."
)
SHARED = (
    "RuntimeError: DataLoader worker (pid 11011) is killed by signal: Bus error. It is possible "
    "that dataloader's workers are out of shared memory. Please try to raise your shared memory "
    "limit"
)


def told(*lines: str, exit_code: int = 1, **more: Any) -> str | None:
    used = more.pop("used", {})
    more.setdefault("mem_gb", None)
    return out_of_memory("train", lines, exit_code=exit_code, used=used, **more)


def test_killed_at_the_limit_that_was_asked_for() -> None:
    used = {"oom_kills": 1, "memory_limit_gb": 4.0, "peak_memory_gb": 3.996}
    assert told(exit_code=137, used=used, mem_gb=4) == (
        "out of memory: killed at its limit of 4 GiB (mem_gb), it had used 4.0 GiB; "
        "raise stages.train.mem_gb"
    )


def test_killed_at_a_limit_that_somebody_else_set() -> None:
    used = {"oom_kills": 1, "memory_limit_gb": 0.25}
    assert told(exit_code=137, used=used) == (
        "out of memory: killed at the limit of 256 MiB that its cgroup has (mem_gb was not set), "
        "what it had used is not known; ask for more with stages.train.mem_gb"
    )


def test_killed_since_the_machine_had_no_more() -> None:
    used = {"oom_kills": 1, "peak_memory_gb": 60.04}
    assert told(exit_code=137, used=used) == (
        "out of memory: killed at the end of its machine's memory (mem_gb was not set), "
        "it had used 60.0 GiB; ask for more with stages.train.mem_gb"
    )


def test_one_of_its_processes_was_killed_and_the_stage_failed_of_it() -> None:
    used = {"oom_kills": 2, "memory_limit_gb": 2.0, "peak_memory_gb": 1.99}
    assert told("RuntimeError: worker exited unexpectedly", used=used, mem_gb=2) == (
        "out of memory: exit status 1, after the kernel had killed 2 of its processes at its limit "
        "of 2 GiB (mem_gb); it had used 2.0 GiB; raise stages.train.mem_gb"
    )


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        (OLD, "on GPU 0 (CUDA): 2.26 GiB more were asked for, 3.03 GiB of 6.00 GiB were free"),
        (
            MISSPELT,
            "on GPU 3 (CUDA): 27.12 GiB more were asked for, 0 bytes of 11.99 GiB were free",
        ),
        (NEW, "on GPU 1 (CUDA): 22.78 GiB more were asked for, 12.73 GiB of 31.47 GiB were free"),
        ("RuntimeError: CUDA error: out of memory", "on a GPU (CUDA)"),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
            "on a GPU (CUDA)",
        ),
    ],
)
def test_a_gpu_has_no_more(line: str, figures: str) -> None:
    assert told("Traceback (most recent call last):", line, "") == (
        f"out of memory {figures}; {ADVICE}"
    )


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("import numpy; numpy.ones(10**13)", "72.8 TiB"),
        ("import torch; torch.empty(10**13)", "37252.9 GiB"),
        ("bytearray(10**15)", ""),
    ],
)
def test_what_libraries_are_refused_is_known(code: str, asked: str, tmp_path: Path) -> None:
    """These fail for real: more is asked for than an address space holds."""
    with (tmp_path / "stage.out").open("wb") as output:
        done = subprocess.run([sys.executable, "-c", code], stderr=output)
    used = {"peak_memory_gb": 0.3}
    refused = f"the machine refused {asked} more".replace("  ", " ")
    lines = last_failure(tmp_path / "stage.out")
    assert told(*lines, exit_code=done.returncode, used=used, mem_gb=8) == (
        f"out of memory: {refused}, it had used 307 MiB; "
        "raise stages.train.mem_gb, or use a smaller batch"
    )


def test_shared_memory_is_another_one() -> None:
    full = "out of memory: workers that load data have filled the shared memory (/dev/shm)"
    assert told(SHARED) == f"{full}; use fewer num_workers"
    assert told(SHARED, shm_gb=8) == (
        f"{full} of 8 GiB, which follows mem_gb; "
        "raise stages.train.mem_gb, or use fewer num_workers"
    )


@pytest.mark.parametrize(
    "line",
    [
        "ValueError: an utterance without memory",
        "    raise MemoryError",
        "note: MemoryError is what you get of a batch too large",
        "",
    ],
)
def test_other_failures_are_not_for_want_of_memory(line: str) -> None:
    assert told(line, used={"peak_memory_gb": 4.0, "oom_kills": 0}, mem_gb=4) is None
    assert told(line, exit_code=137, used={}, mem_gb=4) is None


def test_what_was_survived_is_not_the_reason(tmp_path: Path) -> None:
    """A batch that was too large, and was tried again with a smaller one."""
    output = tmp_path / "stage.out"
    first = f"Traceback (most recent call last):\n  …\n{NEW}\n"
    output.write_text(
        f"{first}trying a smaller batch\nTraceback (most recent call last):\nKeyError: 1\n"
    )
    assert told(*last_failure(output)) is None


def test_a_schedulers_word_for_it_gets_what_was_asked() -> None:
    assert ended_by_scheduler("out of memory: SLURM ended it", "train", 4) == (
        "out of memory: SLURM ended it (mem_gb was 4); raise stages.train.mem_gb"
    )
    assert ended_by_scheduler("its node failed", "train", 4) == "its node failed"
