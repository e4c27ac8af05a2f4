"""What cuts are, as one hash: the same as long as manifests and recordings say the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.data.dataset import recordings
from espnet3.utils.files import sha256_of

if TYPE_CHECKING:
    from lhotse.cut import Cut

# Two hours of 16-bit audio at 16 kHz: hashed in half a second.
READ_AT_MOST_BYTES = 1 << 28


def fingerprint(cuts: Iterable[Cut]) -> str:
    """Return a hash of all that can be learnt or decoded from ``cuts``.

    That is what their manifests say and what their audio files hold, wherever these lie: data
    may be moved or made again without a change. Of files that together are larger than
    :data:`READ_AT_MOST_BYTES`, name, size and modification time stand for the content, since
    reading them all would take long.
    """
    cuts = list(cuts)
    files = {
        source.source
        for cut in cuts
        for recording in recordings(cut)
        for source in recording.sources
        if source.type == "file"
    }
    identities = _identities(files)
    digest = hashlib.sha256()
    for cut in cuts:
        content = _with_identities(cut.to_dict(), identities)
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _identities(files: Iterable[str]) -> dict[str, str]:
    """Return for each file what stands for its content; that of a missing one is empty."""
    paths = {name: Path(name) for name in files}
    found = {name: path.stat() for name, path in paths.items() if path.is_file()}
    if sum(status.st_size for status in found.values()) <= READ_AT_MOST_BYTES:
        known = {name: sha256_of(paths[name]) for name in found}
    else:
        known = {
            name: f"{paths[name].name} {status.st_size} {status.st_mtime_ns}"
            for name, status in found.items()
        }
    return {name: known.get(name, "") for name in paths}


def _with_identities(content: Any, identities: Mapping[str, str]) -> Any:
    """Return a cut, as nested mappings, with each audio file's path replaced by its identity."""
    if isinstance(content, list):
        return [_with_identities(each, identities) for each in content]
    if not isinstance(content, dict):
        return content
    return {
        key: identities.get(value, value)
        if key == "source" and isinstance(value, str)
        else _with_identities(value, identities)
        for key, value in content.items()
    }
