"""A checkout of this project, as a person works in one, with what is in this tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def make_checkout(root: Path, *, images_lock: Path | None = None) -> Path:
    """Copy this tree, committed or not, and commit it there.

    Args:
        root: where it is made.
        images_lock: the file that pins its images, in place of this tree's.
    """
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=REPOSITORY, check=True, capture_output=True).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    if images_lock is not None:
        shutil.copy(images_lock, root / "containers" / "images.lock.yaml")
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root
