"""The launcher's own code as it was at submission, for jobs to run from.

A chain may wait in a queue overnight. Were its jobs to import the launcher from the checkout, an
update in between would have them run another launcher than the one that wrote their records.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from launcher.errors import RecordError
from launcher.masking import RULES
from launcher.recipe import project_root

CODE_DIR = "code"


def copy_code(directory: Path) -> None:
    """Copy the launcher into a launch directory.

    Raises:
        RecordError: it cannot be written.
    """
    root, code = project_root(), directory / CODE_DIR
    try:
        shutil.copytree(
            root / "launcher",
            code / "launcher",
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )
        (code / RULES).parent.mkdir(parents=True)
        shutil.copyfile(root / RULES, code / RULES)
    except (OSError, shutil.Error) as error:
        raise RecordError(f"cannot copy the launcher to {code}: {error}") from error


def code_dir(directory: Path) -> Path:
    """Return the folder from which the jobs of a launch import the launcher."""
    code = directory / CODE_DIR
    # PYTHONPATH cannot express a folder with its separator in the name.
    return project_root() if os.pathsep in str(code) else code


def python_path(directory: Path) -> str:
    """Return ``PYTHONPATH`` for the jobs of a launch."""
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(code_dir(directory)), *([inherited] if inherited else [])])
