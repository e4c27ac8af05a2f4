"""What a stage used, as its job puts it on record: ``job.used`` of the metadata.

CPU, memory and time are the guard's findings (``meter.py``), GPUs are looked at from here. All is
of one node, the first where there are several. What could not be measured is left out.
"""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_GIB = 2**30
_GPU_EVERY_S = 10.0
_NVIDIA_SMI_TIMEOUT_S = 5.0


class UseWatch:
    """Stands beside a stage while it runs; afterwards ``used`` has what there is to record.

    Args:
        file: in which the guard leaves its findings; None where there is none.
        gpus: ids of the stage's GPUs.
    """

    def __init__(self, file: Path | None, gpus: Sequence[str]) -> None:
        self._file, self._gpus = file, gpus
        self._gpu_samples: list[tuple[float, float]] = []
        self._is_over = threading.Event()
        self.used: dict[str, Any] = {}

    def __enter__(self) -> UseWatch:
        self._began_s = time.monotonic()
        if self._file is not None:
            with suppress(OSError):  # an attempt's of the same number, after a node was lost
                self._file.unlink()
        if self._gpus:
            threading.Thread(target=self._watch_gpus, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.used = {"wall_s": round(time.monotonic() - self._began_s, 3)}
        if self._file is not None:
            self.used |= read_used(self._file)
        samples = self._gpu_samples
        if samples:
            mean = sum(percent for percent, _ in samples) / len(samples)
            self.used["gpu_util_percent"] = round(mean, 1)
            self.used["gpu_memory_gb"] = round(max(gib for _, gib in samples), 3)

    def _watch_gpus(self) -> None:
        pause_s = 1.0  # a short stage has one sample at least
        while not self._is_over.wait(pause_s):
            pause_s = _GPU_EVERY_S
            self._gpu_samples += sample_gpus(self._gpus)


def read_used(file: Path) -> dict[str, Any]:
    """Return the guard's findings and remove their file; nothing when it left none that are whole.

    The stage could have written that file too: whatever is not a number is left out.
    """
    try:
        found = json.loads(file.read_bytes())
        file.unlink()
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    used: dict[str, Any] = {}
    for name in ("wall_s", "cpu_s"):
        if _is_number(found.get(name)):
            used[name] = round(found[name], 3)
    for name in ("peak_memory", "memory_limit"):
        if _is_number(found.get(f"{name}_bytes")):
            used[f"{name}_gb"] = round(found[f"{name}_bytes"] / _GIB, 3)
    if found.get("memory_from") in ("cgroup", "processes"):
        used["memory_from"] = found["memory_from"]
    if _is_number(found.get("oom_kills")):
        used["oom_kills"] = int(found["oom_kills"])
    return used


def sample_gpus(gpus: Sequence[str]) -> list[tuple[float, float]]:
    """Return utilisation in percent and memory in GiB of each GPU, as nvidia-smi tells them now."""
    query = ["nvidia-smi", f"--id={','.join(gpus)}", "--query-gpu=utilization.gpu,memory.used"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            [*query, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
        lines = [line.split(",") for line in done.stdout.splitlines()]
        return [(float(percent), float(mib) / 1024) for percent, mib in lines]
    return []


def used_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event or the metadata's ``job`` says of use; empty where it says nothing."""
    used = record.get("used")
    return used if isinstance(used, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
