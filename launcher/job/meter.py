"""What a stage uses of a machine, measured by its guard. It needs only the standard library.

- CPU time is that of every process which the guard has started or adopted, once they have ended.
- Memory is looked at every second, as long as that costs no more than a hundredth of the time.
  Where the stage has a memory cgroup for itself that has a limit (that of its container, or of its
  job), it is what counts there but for cached files, which the kernel drops when there is need of
  it. Elsewhere it is the sum over the stage's processes, of which each counts its share of what
  several have (Pss of proc_pid_smaps(5)): loaders of data are forked, and have most of their memory
  in common.
- Whether the kernel killed for lack of memory, the cgroup tells, be it the stage's own or not.

Nothing of it ever fails a stage: what cannot be measured is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

_FIRST_PAUSE_S, _PAUSE_S = 0.05, 1.0
_MAX_COST = 0.01
_PATIENCE_S = 1.0
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 writes the largest number of pages there is


class Meter:
    """Measures from its making until :meth:`finish`, which leaves a JSON file.

    Args:
        file: to write; it appears whole.
        descendants: returns the processes of the stage that run now.
    """

    def __init__(self, file: Path, descendants: Callable[[], Sequence[int]]) -> None:
        self._file, self._descendants = file, descendants
        self._began_s = time.monotonic()
        self._cgroup = cgroup = find_cgroup()
        self._kills_before = cgroup.oom_kills() if cgroup else 0
        self._limit_bytes = cgroup.limit_bytes() if cgroup else None
        own = {*_lineage(os.getpid()), *descendants()}
        # One without a limit may be a person's session, where others are to come.
        is_own = cgroup is not None and self._limit_bytes is not None and cgroup.is_of(own)
        self._own_cgroup = cgroup if is_own else None
        self._peak_bytes = 0
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def finish(self) -> None:
        """Write what was used. Every process of the stage has ended."""
        self._is_over.set()
        self._watcher.join(_PATIENCE_S)
        with contextlib.suppress(OSError):
            temporary = self._file.with_name(f"{self._file.name}.tmp")
            temporary.write_text(json.dumps(self._used()))
            temporary.replace(self._file)

    def _used(self) -> dict[str, float | str | None]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own, peak = self._own_cgroup, self._peak_bytes
        kills = self._cgroup.oom_kills() - self._kills_before if self._cgroup else 0
        if own is None:  # of its largest process, no moment is missed
            peak = max(peak, ended.ru_maxrss * 1024)
        elif kills:  # no cached file was left by then
            peak = max(peak, own.peak_bytes())
        return {
            "wall_s": time.monotonic() - self._began_s,
            "cpu_s": ended.ru_utime + ended.ru_stime,
            "peak_memory_bytes": peak,
            "memory_from": "cgroup" if own else "processes",
            "memory_limit_bytes": self._limit_bytes,
            "oom_kills": kills,
        }

    def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._is_over.wait(pause_s):
            before = time.monotonic()
            held = self._own_cgroup.held_bytes() if self._own_cgroup else self._pss()
            self._peak_bytes = max(self._peak_bytes, held)
            cost_s = time.monotonic() - before
            pause_s = max(min(2 * pause_s, _PAUSE_S), cost_s / _MAX_COST)

    def _pss(self) -> int:
        return sum(
            _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024 for pid in self._descendants()
        )


class Cgroup:
    """A memory cgroup, of version 1 or 2."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self._root = folder, root
        self._is_v1 = root == _V1

    def is_of(self, processes: Collection[int]) -> bool:
        """Tell whether there are no processes in it but these."""
        with contextlib.suppress(OSError, ValueError):
            listed = (self.folder / "cgroup.procs").read_text().split()
            return all(int(pid) in processes for pid in listed)
        return False

    def is_part(self) -> bool:
        """Tell whether it is not that of the whole machine."""
        if self._is_v1:
            has_usage = (self.folder / "memory.usage_in_bytes").exists()
            return has_usage and not (self.folder / "release_agent").exists()
        return (self.folder / "memory.current").exists()

    def held_bytes(self) -> int:
        """Return the memory that counts in it but for cached files."""
        usage = _number(self._file("memory.usage_in_bytes", "memory.current")) or 0
        prefix = "total_" if self._is_v1 else ""
        stat = self.folder / "memory.stat"
        cached = _field(stat, f"{prefix}inactive_file") + _field(stat, f"{prefix}active_file")
        return max(usage - cached, 0)

    def peak_bytes(self) -> int:
        """Return the most that ever counted in it, cached files too; 0 before Linux 5.19."""
        return _number(self._file("memory.max_usage_in_bytes", "memory.peak")) or 0

    def limit_bytes(self) -> int | None:
        """Return the lowest limit, its own or that of one above it; None without any."""
        folders = [self.folder, *self.folder.parents]
        limits = []
        for folder in folders[: folders.index(self._root) + 1]:
            limit = _number(folder / ("memory.limit_in_bytes" if self._is_v1 else "memory.max"))
            limits += [] if limit is None or limit > _UNLIMITED else [limit]
        return min(limits, default=None)

    def oom_kills(self) -> int:
        """Return how many processes in it the kernel has killed for lack of memory."""
        return _field(self._file("memory.oom_control", "memory.events"), "oom_kill")

    def _file(self, v1: str, v2: str) -> Path:
        return self.folder / (v1 if self._is_v1 else v2)


def find_cgroup() -> Cgroup | None:
    """Return this process's memory cgroup; None in that of the whole machine, which has no end."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = _V1 if "memory" in controllers.split(",") else _V2
            if root == _V2 and controllers:
                continue
            # A container may see its own one as the root, under the path that the host has for it.
            below = root / path.lstrip("/")
            cgroup = Cgroup(below if below.is_dir() else root, root)
            return cgroup if cgroup.is_part() else None
    return None


def _lineage(pid: int) -> list[int]:
    found = []
    while pid > 0:
        found.append(pid)
        pid = _field(Path(f"/proc/{pid}/status"), "PPid:")
    return found


def _field(file: Path, name: str) -> int:
    """Return the number after a name at the beginning of a line; 0 when there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == [name]:
                return int(words[1])
    return 0


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None
