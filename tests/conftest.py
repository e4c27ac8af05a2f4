"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cluster.faults.table import FaultTable

REPOSITORY = Path(__file__).resolve().parents[1]
# Spaces, quotes, a submitit pattern, a bind-mount separator and a letter outside ASCII.
HOSTILE_NAME = "my 'own' \"work\" %j:é"


def pytest_configure(config: pytest.Config) -> None:
    """Let signals have their ordinary effect here and in every process that tests start.

    A suite that a script or ``nohup`` runs in the background begins with some of them ignored, and
    an ignored signal stays ignored in all that it starts. Nor do the settings of the person who
    runs the suite have a say in it.
    """
    config.pluginmanager.register(FaultTable())
    os.environ["LAUNCHER_CONFIG"] = str(Path(__file__).parent / "launch.yaml")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_DFL)


def lacks(message: str) -> NoReturn:
    """Skip a test for want of a real part; fail where every part has to be there."""
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture
def hostile_path(tmp_path: Path) -> Path:
    """Return an empty folder whose name breaks whatever is not quoted."""
    path = tmp_path / HOSTILE_NAME
    path.mkdir()
    return path


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of data that is too large for the repository; missing in CI is an error."""
    path = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        lacks(f"no shared data at {path}; set SHARED_DATA")
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of its own with room for 256 KiB, to be filled by a test."""
    path = tmp_path / "small disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        lacks(f"cannot mount a small file system, which needs root: {mounted.stderr}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(autouse=True)
def _clean_logging() -> Iterator[None]:
    """Take away the handlers and hooks that a test's run installed on the root logger."""
    root = logging.getLogger()
    before, level, hook = list(root.handlers), root.level, sys.excepthook
    yield
    for handler in list(root.handlers):
        if handler not in before:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook = hook
