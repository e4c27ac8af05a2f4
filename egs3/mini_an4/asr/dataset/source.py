"""Getting mini AN4, which ships inside the wheel of ESPnet, with pip's own download command."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

from espnet3.utils.errors import DataError, storage_errors
from espnet3.utils.files import sha256_of

logger = logging.getLogger(__name__)

REQUIREMENT = "espnet==202611"
WHEEL_SHA256 = "878069c6a5538c5da0f6826bc1cfcd338c53caa58c831f3fa8b4d38dd379278e"
ARCHIVE_IN_WHEEL = "egs3/mini_an4/esp2_asr/downloads.tar.gz"
ARCHIVE_SHA256 = "42314268903a35709fff2029ee0fbac27c886eae37de308733e0f1b465f4eb5e"


def download_wheel(folder: Path, *, advice: str) -> Path:
    """Fetch the wheel (4.5 MB, nothing is installed) into ``folder`` and verify it.

    Raises:
        DataError: without pip or network, or when the wheel is not the pinned one.
    """
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{sys.executable} has no pip to fetch {REQUIREMENT} with. Install it "
            f"({sys.executable} -m ensurepip), or {advice}"
        )
    # The Python version is pinned too: which wheel pip picks must not hang on this one.
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
    command += ["--progress-bar", "off", "--retries", "2", "--timeout", "20"]
    command += ["--dest", str(folder), REQUIREMENT]
    logger.info("Fetching %s, which holds the data, with pip download", REQUIREMENT)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = _reason(done.stderr) or f"it ended with status {done.returncode}"
        raise DataError(f"pip could not fetch {REQUIREMENT} ({reason}). Try again, or {advice}")
    verify(wheels[0], WHEEL_SHA256)
    return wheels[0]


def _reason(said: str) -> str:
    """Return why pip failed; without network its last words are that there is no such wheel."""
    if "Retrying (" in said:
        return "the package registry cannot be reached"
    errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    return errors[-1].removeprefix("ERROR: ") if errors else ""


def archive_of(wheel: Path, folder: Path) -> Path:
    """Take the data's archive out of ESPnet's wheel, into ``folder``.

    Raises:
        DataError: when the wheel is broken or has no such archive.
    """
    archive = folder / "downloads.tar.gz"
    try:
        with storage_errors(folder), zipfile.ZipFile(wheel) as members:
            archive.write_bytes(members.read(ARCHIVE_IN_WHEEL))
    except KeyError as error:
        raise DataError(f"{wheel} holds no {ARCHIVE_IN_WHEEL}; {REQUIREMENT} does.") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel} is no wheel, or is truncated ({error}). Get it anew.") from error
    return archive


def verify(path: Path, sha256: str) -> None:
    """Hold a file to its pinned digest.

    Raises:
        DataError: with both digests.
    """
    found = sha256_of(path)
    if found != sha256:
        raise DataError(
            f"{path.name} is not the pinned file: its SHA-256 is {found}, {sha256} is expected. "
            f"It was altered or cut short on the way; get it anew from {REQUIREMENT}."
        )
