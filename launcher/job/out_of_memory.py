"""That a stage failed for want of memory: what was asked for, what was used, and what to do.

The kernel's kills are known from the stage's cgroup (``meter.py``); what a library was refused, it
says at the end of the stage's output.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

BEGINNING = "out of memory"
_KILLED = 128 + signal.SIGKILL
_SIZE = r"\d[\d.]* (?:bytes|[KMGT]iB)"
# PyTorch 2 (from 2.0 to 2.1 it wrote "capacty"), and PyTorch 1.
_CUDA_FIGURES = re.compile(
    rf"Tried to allocate (?P<asked>{_SIZE})(?:\. GPU (?P<gpu>\d+) has a total capac\w+ of "
    rf"(?P<total>{_SIZE}) of which (?P<free>{_SIZE}) is free"
    rf"| \(GPU (?P<old_gpu>\d+); (?P<old_total>{_SIZE}) total capacity;"
    rf".*? (?P<old_free>{_SIZE}) free)"
)
_CUDA = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED"
)
_HOST_FIGURES = re.compile(
    rf"Unable to allocate (?P<asked>{_SIZE}) for an array"  # NumPy
    r"|DefaultCPUAllocator: .*you tried to allocate (?P<bytes>\d+) bytes"  # PyTorch
)
_HOST = re.compile(
    r"^(?:[\w.]*\.)?_?(?:Array)?MemoryError\b|std::bad_alloc|Cannot allocate memory"
    r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
)
_SHARED = re.compile(r"out of shared memory|insufficient shared memory")


def out_of_memory(
    stage: str,
    lines: Sequence[str],
    *,
    exit_code: int,
    used: Mapping[str, Any],
    mem_gb: float | None,
    shm_gb: float | None = None,
) -> str | None:
    """Say that a stage failed for want of memory; None when it did for another reason.

    Args:
        stage: its name.
        lines: the last lines of its output, those that say why it failed.
        exit_code: as a shell has it.
        used: what was measured, as it is recorded.
        mem_gb: memory that was asked for, in GiB.
        shm_gb: size of ``/dev/shm``, in GiB; None where it is the host's.
    """
    limits = _Limits(stage, used, mem_gb)
    kills = used.get("oom_kills") or 0
    if kills and exit_code == _KILLED:
        return f"{BEGINNING}: killed at {limits.limit}, {limits.had_used}; {limits.advice}"
    if _found(_SHARED, lines):
        return _of_shared_memory(stage, shm_gb)
    if _found(_CUDA, lines):
        return _on_gpu(_found(_CUDA_FIGURES, lines))
    if kills:
        whom = "one of its processes" if kills == 1 else f"{kills} of its processes"
        return (
            f"{BEGINNING}: exit status {exit_code}, after the kernel had killed {whom} at "
            f"{limits.limit}; {limits.had_used}; {limits.advice}"
        )
    if _found(_HOST, lines) or _found(_HOST_FIGURES, lines):
        return _on_host(_found(_HOST_FIGURES, lines), limits)
    return None


def ended_by_scheduler(reason: str, stage: str, mem_gb: float | None) -> str:
    """Add to a scheduler's word for it what was asked for; other reasons stay as they are."""
    if not reason.startswith(BEGINNING):
        return reason
    limits = _Limits(stage, {}, mem_gb)
    return f"{reason} ({limits.asked}); {limits.advice}"


class _Limits:
    """What a stage was allowed, and what it had used, in words."""

    def __init__(self, stage: str, used: Mapping[str, Any], mem_gb: float | None) -> None:
        limit = used.get("memory_limit_gb")
        self.asked = "mem_gb was not set" if mem_gb is None else f"mem_gb was {mem_gb:g}"
        if limit is None:
            self.limit = f"the end of its machine's memory ({self.asked})"
        elif mem_gb is not None and abs(limit - mem_gb) < 0.01 * mem_gb:
            self.limit = f"its limit of {mem_gb:g} GiB (mem_gb)"
        else:
            self.limit = f"the limit of {_gib(limit)} that its cgroup has ({self.asked})"
        peak = used.get("peak_memory_gb")
        self.had_used = f"it had used {_gib(peak)}" if peak else "what it had used is not known"
        more = "raise" if mem_gb is not None else "ask for more with"
        self.advice = f"{more} stages.{stage}.mem_gb"


def _on_gpu(figures: re.Match[str] | None) -> str:
    advice = "use a smaller batch, or a GPU with more memory"
    if figures is None:
        return f"{BEGINNING} on a GPU (CUDA); {advice}"
    told = {name.removeprefix("old_"): text for name, text in figures.groupdict().items() if text}
    return (
        f"{BEGINNING} on GPU {told['gpu']} (CUDA): {told['asked']} more were asked for, "
        f"{told['free']} of {told['total']} were free; {advice}"
    )


def _on_host(figures: re.Match[str] | None, limits: _Limits) -> str:
    refused = "the machine refused more"
    if figures is not None:
        asked = figures["asked"] or _gib(int(figures["bytes"]) / 2**30)
        refused = f"the machine refused {asked} more"
    return f"{BEGINNING}: {refused}, {limits.had_used}; {limits.advice}, or use a smaller batch"


def _of_shared_memory(stage: str, shm_gb: float | None) -> str:
    size = "" if shm_gb is None else f" of {shm_gb:g} GiB, which follows mem_gb"
    advice = "use fewer num_workers"
    if shm_gb is not None:
        advice = f"raise stages.{stage}.mem_gb, or {advice}"
    full = "workers that load data have filled the shared memory (/dev/shm)"
    return f"{BEGINNING}: {full}{size}; {advice}"


def _found(pattern: re.Pattern[str], lines: Sequence[str]) -> re.Match[str] | None:
    matches = (pattern.search(line) for line in reversed(lines))
    return next((match for match in matches if match), None)


def _gib(gib: float) -> str:
    """Write an amount of memory as a person would: ``850 MiB``, ``4.0 GiB``."""
    return f"{gib * 1024:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB"
