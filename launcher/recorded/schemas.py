"""What the fields of each record may hold. A field that is not named here nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.recorded.kinds import (
    Kind,
    Spec,
    anything,
    flag,
    integer,
    list_of,
    mapping_of,
    moment,
    name,
    number,
    optional,
    pair_of,
    path,
    paths_to,
    raw_text,
    record,
    text,
)
from launcher.recorded.unfit import Unfit, found_in

INODE = optional(integer())
PROCESS = record(
    {"pid": integer(1, 2**31), "start_ticks": integer(), "boot_id": text, "host": text}
)
USED = record(
    {},
    {
        **dict.fromkeys(
            ("wall_s", "cpu_s", "peak_memory_gb", "memory_limit_gb", "gpu_memory_gb"),
            optional(number()),
        ),
        "gpu_util_percent": optional(number()),
        "oom_kills": optional(integer()),
        "memory_from": optional(text),
    },
)

# Without these nothing can be told of a launch.
JOBS = list_of(
    record(
        {"stage": name, "output": path, "log": path, "metadata": path},
        {"after": optional(name), "carried_from": optional(path)},
    )
)
LAUNCHER = optional(PROCESS)

RESOURCES: Mapping[str, Kind] = {
    "nodes": integer(1, 100_000),
    "cpus_per_task": optional(integer(1, 100_000)),
    "gpus_per_node": integer(0, 1000),
    "mem_gb": optional(number(0.01, 1e6)),
    "timeout_min": optional(integer(1, 5_256_000)),
}
MOUNT = record({"source": path, "target": path, "read_only": flag})
FINGERPRINT = record(
    {
        "image": optional(text),
        "code": optional(text),
        "config": mapping_of(text),
        "arguments": list_of(raw_text),
        "environment": mapping_of(raw_text),
    }
)
JOB: Mapping[str, Spec] = {
    "stage_command": list_of(raw_text),
    "working_dir": path,
    "environment": mapping_of(raw_text),
    "secrets": list_of(raw_text),
    "resources": RESOURCES,
    "cluster": mapping_of(anything),
    "container": mapping_of(anything),
    "image": optional(mapping_of(anything)),
    "mounts": list_of(MOUNT),
    "fingerprint": FINGERPRINT,
    "carried_created": optional(moment),
}

PLAN: Mapping[str, Kind] = {
    "recipe_dir": path,
    "system": text,
    "exp_dir": optional(path),
    "stages": list_of(
        record(
            {"name": name, "log_dir": path, "configs": mapping_of(path)},
            {"roles": optional(list_of(raw_text))},
        )
    ),
}
PLAN_MORE: Mapping[str, Kind] = {"paths": list_of(path), "framework": optional(path)}
_ROOT = record(
    {},
    {
        "path": path,
        "mode": text,
        "commit": optional(text),
        "branch": optional(text),
        "dirty": optional(flag),
        "digest": optional(text),
    },
)
LAUNCH: Mapping[str, Spec] = {
    "id": text,
    "created": moment,
    "working_dir": path,
    "recipe_dir": path,
    "code_root": path,
    "git": optional(record({}, {"commit": optional(text)})),
    "versions": mapping_of(optional(text)),
    "config": {
        "cluster": {"name": name},
        "container": {"name": name},
        "stop_grace_s": number(0, 86400),
    },
    "plan": {**PLAN, **PLAN_MORE},
    "command_line": list_of(raw_text),
    "snapshot": {
        "mode": text,
        "copied": flag,
        "directory": path,
        "manifest": path,
        "diff": optional(path),
        "digest": optional(text),
        "roots": list_of(_ROOT),
    },
    "notices": list_of(text),
    "queued_behind": list_of(path),
    "request": {"settings": list_of(raw_text), "passed_on": list_of(raw_text)},
    "resumes": path,
    "reproduces": path,
}

METADATA: Mapping[str, Spec] = {
    "state": text,
    "kept": flag,
    "results": optional(mapping_of(anything)),
    "exit": optional(record({}, {"message": optional(text)})),
    "job": {
        "output_inode": INODE,
        "log_inode": INODE,
        "used": optional(USED),
        "gpus": optional(list_of(text)),
    },
}


def _file_of_code(value: Any) -> list[Any]:
    """Take root's number, name, mode, SHA-256, size and time of a file; there may be many."""
    is_whole = (
        isinstance(value, list)
        and len(value) == len(_FILE_OF_CODE)
        and all(type(each) is kind for each, kind in zip(value, _FILE_OF_CODE, strict=True))
    )
    if not is_whole:
        raise Unfit("what is recorded of a file", found_in(value))
    path(value[1])
    return list(value)


_FILE_OF_CODE = (int, str, str, str, int, int)
_MANIFEST = record({"roots": list_of(path), "entries": list_of(_file_of_code)})


def manifest(value: Any) -> tuple[list[str], list[list[Any]]]:
    """Take the manifest of a snapshot: its code roots, and what is recorded of each file.

    Raises:
        Unfit: it is not whole.
    """
    known = _MANIFEST(value)
    roots, entries = known["roots"], known["entries"]
    for index, each in enumerate(entries):
        if not 0 <= each[0] < len(roots):
            raise Unfit("the number of a root", found_in(each[0]), f"entries[{index}]")
    return roots, entries


HOLDER = record(
    {"launch": path, "stages": list_of(name), "user": text, "host": text, "launcher": PROCESS}
)
OUTPUTS = record(
    {
        "folder": path,
        "num_files": integer(),
        "num_bytes": integer(),
        "files": optional(paths_to(pair_of(integer(-(2**63))))),
    }
)
