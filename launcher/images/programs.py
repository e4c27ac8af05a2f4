"""The programs that unpack and pack images: found, run, and their own words when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from launcher.errors import ImageError

_ERROR_LINES = 6
# Gives mksquashfs a time, which it refuses to be given twice (-mkfs-time).
_TIME_VARIABLE = "SOURCE_DATE_EPOCH"
_VERSION_OPTIONS = {"mksquashfs": "-version", "enroot": "version"}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find(*names: str) -> str | None:
    """Return the first of these programs that there is, as a path."""
    return next((found for name in names if (found := shutil.which(name))), None)


def find_apptainer(name: str | None) -> str:
    """Return Apptainer, or SingularityCE, which takes the same commands.

    Raises:
        ImageError: neither is there.
    """
    found = find(name) if name else find("apptainer", "singularity")
    if found is None:
        raise ImageError(
            f"there is no program {name or 'apptainer'} here, which makes SIF files. Load its "
            "module (`module load apptainer`) or install it: apptainer.org"
        )
    return found


def find_mksquashfs() -> str:
    """Return ``mksquashfs``, which distributions keep where only root looks.

    Raises:
        ImageError: it is not there.
    """
    found = find("mksquashfs") or shutil.which("mksquashfs", path=_SBIN)
    if found is None:
        raise ImageError(
            "there is no program mksquashfs here, which packs images. Install squashfs-tools 4.5 "
            "or newer, or convert where it is and copy the file here with its .json."
        )
    return found


def run(command: Sequence[str], what: str, extra: Mapping[str, str] | None = None) -> None:
    """Run a program to its end.

    Args:
        command: program and arguments.
        what: what it does, for the message.
        extra: variables besides those of this process.

    Raises:
        ImageError: it failed; its last lines are in the message.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(extra or {}),
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ImageError(f"{command[0]} cannot be run: {error.strerror}") from error
    _check(what, done.returncode, done.stdout)


@contextmanager
def feed(command: Sequence[str], what: str, extra: Mapping[str, str]) -> Iterator[IO[bytes]]:
    """Start a program that reads what is written to the file that is yielded.

    Raises:
        ImageError: it failed; its last lines are in the message.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(extra),
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError), process.stdin:  # it says itself why it ended
                yield process.stdin
        except BaseException:
            process.kill()
            process.wait()
            raise
        status = process.wait()
        output.seek(0)
        _check(what, status, output.read())


@contextmanager
def workplace() -> Iterator[Path]:
    """Yield a new folder in which there is room for an unpacked image.

    Raises:
        ImageError: it cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="launcher-image-", dir=_temporary_dir()))
    except OSError as error:
        raise ImageError(f"no temporary folder can be made: {error}. Set TMPDIR.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def version(program: str) -> str:
    """Return the first line of what a program says of its version, such as ``apptainer 1.4.5``."""
    name = Path(program).name
    command = [program, _VERSION_OPTIONS.get(name, "--version")]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30)
        line = next(iter((done.stdout + done.stderr).strip().splitlines()), "")
        said = line.replace("version ", "").partition(" (")[0]
        return said if said.startswith(name) else f"{name} {said}".strip()
    return name


def _temporary_dir() -> str | None:
    return os.environ.get("APPTAINER_TMPDIR") or None  # else TMPDIR


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != _TIME_VARIABLE}
    return {**inherited, **extra}


def _check(what: str, status: int, output: str) -> None:
    if status != 0:
        lines = [line for line in output.splitlines() if line.strip()][-_ERROR_LINES:]
        said = "\n  ".join(lines) or f"exit status {status}"
        hint = "\nTMPDIR names the folder to unpack in." if "No space left" in said else ""
        raise ImageError(f"{what} failed:\n  {said}{hint}")
