"""The fingerprint of a stage: all that its result depends on, by which a later launch can keep it.

::

    {"image": "sha256:…" | null,       the image that is asked for
     "code": "…" | null,               SHA-256 of the files of the code
     "config": {role: "…"},            SHA-256 of each resolved config on which the stage may depend
     "arguments": […],                 of run.py, without those that name configs
     "environment": {…}}               variables that the settings give to the stage

It stands in the job's record in ``launch.json``. What the configs come to is in ``configs.json``
beside it, secrets masked, and what each file of the code was in the manifest of the snapshot, so
that a difference can be named. What the stage left is recorded at its end (``stage_outputs.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import RecordError
from launcher.images.pin import ImagePin
from launcher.launch import SNAPSHOT_DIR, Job, Launch
from launcher.masking import mask_arguments, mask_environment
from launcher.plan import PlannedStage, StagePlan
from launcher.printable import harmless
from launcher.recorded.files import read_json
from launcher.recorded.kinds import anything, mapping_of
from launcher.recorded.schemas import FINGERPRINT
from launcher.recorded.unfit import Unfit
from launcher.records import LaunchRecords
from launcher.snapshot.files import CodeFiles

CONFIGS_FILE = "configs.json"
_CONFIGS = mapping_of(mapping_of(anything))
_MOST_NAMED = 5
_SHOWN_CHARACTERS = 60
_MAX_PATH_CHARACTERS = 1024
_ABSENT = "–"
_SUFFIX = "_config"

Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Basis:
    """What the fingerprints of a launch's stages are made of.

    Attributes:
        code: its files.
        configs: what its configs come to, by role and dotted key.
    """

    code: CodeFiles
    configs: Configs

    @classmethod
    def recorded(cls, records: LaunchRecords) -> Basis:
        """Read that of an earlier launch; what is not to be read there is empty."""
        code, configs = CodeFiles({}), {}
        # That they differ is known by their digests all the same.
        with suppress(RecordError):
            code = CodeFiles.recorded(records.directory / SNAPSHOT_DIR)
        with suppress(OSError, ValueError):
            configs = _CONFIGS(read_json(records.directory / CONFIGS_FILE))
        return cls(code, configs)


def fingerprint(job: Job, launch: Launch, basis: Basis) -> dict[str, Any]:
    """Return the fingerprint of a stage, JSON-able."""
    (stage,) = (each for each in launch.plan.stages if each.name == job.stage)
    return {
        "image": image_digest(job.pin),
        "code": basis.code.digest,
        "config": {
            role: _digest(values)
            for role, values in basis.configs.items()
            if stage.roles is None or role in stage.roles
        },
        "arguments": mask_arguments(_without_configs(job.arguments, stage)),
        "environment": mask_environment(job.settings.env),
    }


def compared_configs(plan: StagePlan) -> dict[str, dict[str, Any]]:
    """Return what the configs of a plan come to; of one that was not loaded, its file's digest.

    A YAML file that is named in a config counts by its content as well.
    """
    configs = {role: dict(values) for role, values in plan.resolved.items()}
    files = {role: path for stage in plan.stages for role, path in stage.configs.items()}
    for role, path in files.items():
        if configs.get(role, {}).keys() <= {""}:
            configs[role] = {"": _file_digest(path)}
    for values in configs.values():
        for key, value in list(values.items()):
            for path in _named_yaml(value, plan, files.values()):
                values[f"{key} (the file)"] = _file_digest(path)
    return configs


def write_configs(records: LaunchRecords, configs: Configs) -> None:
    """Write what the configs of a launch come to into its directory.

    Raises:
        RecordError: they cannot be written.
    """
    path = records.directory / CONFIGS_FILE
    try:
        with open(path, "x", encoding="utf-8", opener=_private) as file:
            json.dump(configs, file)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


def differences(
    then: Mapping[str, Any], now: Mapping[str, Any], was: Basis, basis: Basis, *, below: Path
) -> list[str]:
    """Name what has changed between two fingerprints: ``config training.lr: 0.004 → 0.002``.

    Args:
        then: that of the stage when it was done.
        now: that which it would have.
        was: what the first was made of, as far as it can still be read.
        basis: what the second is made of.
        below: the code root, for the names of files.
    """
    found = []
    if then["image"] != now["image"]:
        found.append(f"image: {then['image'] or 'none'} → {now['image'] or 'none'}")
    if now["code"] is None:
        found.append(
            "code: it is not all on record, being too large or in no git work tree (snapshot=copy)"
        )
    elif then["code"] != now["code"]:
        names = was.code.differing(basis.code, below=below) if was.code.files else []
        found.append(f"code: {_few(names) or 'not the same; which files, is not on record'}")
    found += _config_differences(then["config"], now["config"], was.configs, basis.configs)
    if then["arguments"] != now["arguments"]:
        before, after = (shlex.join(each["arguments"]) or _ABSENT for each in (then, now))
        found.append(f"arguments: {before} → {after}")
    environments = (then["environment"], now["environment"])
    found += [f"environment {key}: {how}" for key, how in _changed(*environments)]
    return [harmless(each) for each in found]


def is_whole(value: Any) -> bool:
    """Tell whether a record holds a fingerprint; that of an older launcher holds none."""
    try:
        FINGERPRINT(value)
    except Unfit:
        return False
    return True


def image_digest(pin: ImagePin | None) -> str | None:
    """Return the digest by which an image is asked for; of an unpinned one its name."""
    if pin is None:
        return None
    return pin.digest or pin.image_id or pin.sif_sha256 or pin.sqsh_sha256 or pin.asked


def _config_differences(
    then: Mapping[str, str], now: Mapping[str, str], was: Configs, configs: Configs
) -> Iterator[str]:
    for role in sorted(then.keys() | now.keys()):
        if then.get(role) == now.get(role):
            continue
        name = role.removesuffix(_SUFFIX)
        if role not in then or role not in now:
            yield f"config {name}: {'given now' if role in now else 'not given any more'}"
            continue
        if _digest(was.get(role, {})) != then[role]:
            yield f"config {name}: not the same; which keys, is not on record"
            continue
        changed = list(_changed(was[role], configs[role]))
        for key, how in changed[:_MOST_NAMED]:
            yield f"config {name}.{key}: {how}" if key else f"config {name}: {how}"
        if len(changed) > _MOST_NAMED:
            yield f"config {name}: {len(changed) - _MOST_NAMED} more keys"


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in sorted(then.keys() | now.keys()):
        before, after = (_shown(each, key) for each in (then, now))
        if before != after:
            is_file = key == "" or key.endswith(" (the file)")
            yield key, "its content changed" if is_file else f"{before} → {after}"


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return _ABSENT
    value = values[key]
    is_plain = isinstance(value, str) and value.isprintable()
    text = value if is_plain else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _without_configs(arguments: Sequence[str], stage: PlannedStage) -> list[str]:
    """Leave out the flags that name configs: these count by what they come to."""
    left: list[str] = []
    is_value = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        is_config = flag.startswith("--") and flag[2:].replace("-", "_") in stage.configs
        if not is_config and not is_value:
            left.append(argument)
        is_value = is_config and not equals
    return left


def _named_yaml(value: Any, plan: StagePlan, own: Any) -> Iterator[Path]:
    if isinstance(value, str) and value.endswith((".yaml", ".yml")) and "\0" not in value:
        folders = dict.fromkeys([plan.recipe_dir, *(path.parent for path in own)])
        for path in (folder / value for folder in folders):
            if path not in own and len(value) < _MAX_PATH_CHARACTERS and path.is_file():
                yield path
                return


def _file_digest(path: Path) -> str:
    try:
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
