"""The image lock file: names, and the one image that each of them stands for.

::

    cpu:
      repository: registry.example/espnet3/cpu
      digest: sha256:…          # of the manifest in the registry
      image_id: sha256:…        # of the image's configuration, which a local store names it by
      sif_sha256: sha256:…      # of the SIF file made of it, where that is pinned as well
      sqsh_sha256: sha256:…     # of the squashfs file
      base: docker.io/library/python@sha256:…
      inputs: {Dockerfile: sha256:…, cpu/image.yaml: sha256:…, cpu/requirements.lock: sha256:…}
      built: '2026-11-23T06:31:12Z'
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import ImageError, did_you_mean
from launcher.images.files import locked, write_whole
from launcher.images.pin import ImagePin
from launcher.images.reference import digest_problem, is_digest, parse_reference

_HEAD = """\
# Images by digest: what a name stands for, here and on every node. Written by
# `python -m launcher image pin`; docs/containers.md explains it. Commit it.
"""
_NONE = """
# No image is pinned yet. To make and pin one:
#   python -m launcher image build cpu
#   python -m launcher image push cpu --to localhost:5000/espnet3/cpu
#   python -m launcher image pin cpu
{}
"""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DIGESTS = ("digest", "image_id", "sif_sha256", "sqsh_sha256")


@dataclass(frozen=True)
class LockEntry:
    """What one name stands for; :class:`ImagePin` explains the fields.

    ``built`` is when the image was built, in UTC, as ISO 8601 has it.
    """

    repository: str | None = None
    digest: str | None = None
    image_id: str | None = None
    sif_sha256: str | None = None
    sqsh_sha256: str | None = None
    base: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    built: str | None = None

    def pin(self, name: str) -> ImagePin:
        """Return the entry as what the launcher works with."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        del values["built"]
        return ImagePin(name, **values)


def read_lock(path: Path) -> dict[str, LockEntry]:
    """Return the entries of a lock file by name; none when there is no such file.

    Raises:
        ImageError: it cannot be read, or an entry is not as it has to be; the message names the
            file, the entry and the field.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: the image lock file cannot be read: {error}") from error
    try:
        _refuse_twins(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise ImageError(f"{path}: the image lock file is not YAML: {what}") from error
    except RecursionError:
        raise ImageError(f"{path}: the image lock file is nested without end") from None
    except ValueError as error:  # a date that there is not
        raise ImageError(f"{path}: the image lock file cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ImageError(f"{path}: an image lock file is a mapping of names to images")
    return {name: _entry(path, name, fields) for name, fields in content.items()}


def update_lock(path: Path, name: str, entry: LockEntry) -> None:
    """Set one entry. Other entries and the comment at the head stay; a reader sees all or nothing.

    Raises:
        ImageError: the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ImageError(
            f"'{name}' cannot be the name of an image: small letters, digits and ._- only"
        )
    with locked(path.parent):  # no lock file in a folder that is under version control
        write_lock(path, {**read_lock(path), name: entry})


def write_lock(path: Path, entries: Mapping[str, LockEntry]) -> None:
    """Write a whole lock file, sorted, under the comment at its head.

    Raises:
        ImageError: the file cannot be written.
    """
    import yaml

    shown = {name: _shown(entries[name]) for name in sorted(entries)}
    body = yaml.safe_dump(shown, sort_keys=False, width=1000) if shown else ""
    write_whole(path, _head(path) + (f"\n{body}" if body else _NONE))


def _head(path: Path) -> str:
    """Return the comment that the file begins with, or the usual one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError):
        return _HEAD
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line)
    return "".join(head) or _HEAD


def _shown(entry: LockEntry) -> dict[str, Any]:
    values = {each.name: getattr(entry, each.name) for each in dataclasses.fields(entry)}
    if entry.inputs:
        values["inputs"] = dict(sorted(entry.inputs.items()))
    return {name: value for name, value in values.items() if value}


def _entry(path: Path, name: object, fields: object) -> LockEntry:
    where = f"{path}: {name}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ImageError(f"{where}: a name has small letters, digits and ._- only")
    if not isinstance(fields, dict):
        raise ImageError(f"{where}: here stand the fields of an image, such as digest: sha256:…")
    known = [each.name for each in dataclasses.fields(LockEntry)]
    for key in fields:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ImageError(
                f"{where}: there is no field '{key}'.{hint} Fields: {', '.join(known)}"
            )
    values = {key: value for key, value in fields.items() if value is not None}
    if isinstance(values.get("built"), datetime.datetime):  # YAML's own idea of a time
        values["built"] = values["built"].isoformat()
    inputs = values.pop("inputs", {})
    for key, value in values.items():
        if not isinstance(value, str):
            raise ImageError(f"{where}: {key}: {value!r} is not a text")
        if key in _DIGESTS and not is_digest(value):
            raise ImageError(f"{where}: {key}: {digest_problem(value)}")
    _check_repository(where, values)
    if not isinstance(inputs, dict):
        raise ImageError(f"{where}: inputs: this is a mapping of files to digests")
    for file, digest in inputs.items():
        if not isinstance(file, str) or not isinstance(digest, str) or not is_digest(digest):
            raise ImageError(f"{where}: inputs: {file}: {digest_problem(str(digest))}")
    return LockEntry(**values, inputs=inputs)


def _check_repository(where: str, values: Mapping[str, str]) -> None:
    if "repository" in values:
        try:
            reference = parse_reference(values["repository"])
        except ImageError as error:
            raise ImageError(f"{where}: repository: {error}") from error
        if reference.tag or reference.digest:
            raise ImageError(
                f"{where}: repository: '{values['repository']}' is more than a repository; "
                "the digest stands in its own field, and a tag nowhere"
            )
    if ("repository" in values) != ("digest" in values):
        lacking = "digest" if "repository" in values else "repository"
        raise ImageError(f"{where}: {lacking}: it is missing; repository and digest go together")
    if not any(key in values for key in _DIGESTS):
        raise ImageError(f"{where}: nothing in it pins an image: digest and image_id are missing")


def _refuse_twins(node: Any) -> None:
    """Refuse a key that stands twice, of which YAML would silently take the second."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problem = "a name is to be a text"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        if key.value in seen:
            problem = f"'{key.value}' stands there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)
        _refuse_twins(value)
