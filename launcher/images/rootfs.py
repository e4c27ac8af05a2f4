"""The root file system of an image, unpacked by Apptainer, and packed again so that it depends on
the image alone: not on the time, the user, or where the image came from.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path

# Given to what Apptainer adds to the image, which is younger than all that is in it. 1980, since
# there are tools that know no earlier time.
_EPOCH_S = 315532800
# What Apptainer says of itself and of now; the rest comes from the image.
_LABELS_OF_THE_CONVERSION = (
    "org.label-schema.build-date",
    "org.label-schema.usage.singularity.deffile.bootstrap",
    "org.label-schema.usage.singularity.deffile.from",
)
_METADATA = Path(".singularity.d")
# export NAME="${NAME:-"VALUE"}", or export PATH="VALUE"
_EXPORT = re.compile(
    r'^export (?P<name>[A-Za-z_]\w*)="(?:\$\{(?P=name):-"(?P<default>.*)"\}|(?P<value>.*))"$',
    re.MULTILINE,
)
_ESCAPED = re.compile(r'\\([\\"$`])')


def make_timeless(root: Path, *, unpacked_at_s: float) -> None:
    """Take out of an unpacked image what differs from one unpacking to the next.

    Args:
        root: as ``apptainer build --sandbox`` left it.
        unpacked_at_s: when that began, in seconds since 1970; what is younger gets a fixed time.

    Raises:
        OSError: it cannot be changed.
    """
    labels_file = root / _METADATA / "labels.json"
    if labels_file.exists():
        labels = json.loads(labels_file.read_text())
        kept = {name: labels[name] for name in labels if name not in _LABELS_OF_THE_CONVERSION}
        labels_file.write_text(json.dumps(kept, indent=1, sort_keys=True))
    definition = root / _METADATA / "Singularity"
    if definition.exists():
        definition.write_text("")  # it says where the image was fetched from
    youngest_s = int(unpacked_at_s)
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            _settle(os.path.join(folder, name), youngest_s)  # noqa: PTH118  tens of thousands
        _settle(folder, youngest_s)


def image_environment(root: Path) -> dict[str, str]:
    """Return the variables that the image sets, as Apptainer noted them when it unpacked it."""
    try:
        script = (root / _METADATA / "env" / "10-docker2singularity.sh").read_text()
    except FileNotFoundError:
        return {}
    return {
        found["name"]: _ESCAPED.sub(r"\1", found["default"] or found["value"] or "")
        for found in _EXPORT.finditer(script)
    }


def now_s() -> float:
    """Return the time by the clock that file times come from."""
    return time.time()


def _settle(path: str, youngest_s: int) -> None:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        pass
    elif status.st_mode & 0o7000:
        # Unpacking as a user loses them. A container has no use for them: it runs without new
        # privileges.
        os.chmod(path, status.st_mode & 0o777)  # noqa: PTH101
    if status.st_mtime >= youngest_s:
        os.utime(path, (_EPOCH_S, _EPOCH_S), follow_symlinks=False)
