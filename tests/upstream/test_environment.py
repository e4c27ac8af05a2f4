"""What is said where upstream's environment cannot be found or made. Nothing is fetched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from . import environment


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that UPSTREAM_ENV names; there is nothing in its place."""
    monkeypatch.setenv("UPSTREAM_ENV", str(tmp_path / "env"))
    return tmp_path / "env"


def write_program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '{says}'\n")
    path.chmod(0o755)
    return path


def test_an_environment_that_is_not_there_is_told(place: Path) -> None:
    with pytest.raises(environment.EnvironmentMissing, match=r"No such file.*make test-upstream"):
        environment.find()


def test_an_environment_is_found(place: Path) -> None:
    python = write_program(place / "bin" / "python", r"202611\n/site packages\n")
    assert environment.find() == (python, Path("/site packages"))


@pytest.mark.parametrize(("says", "told"), [(r"202609\n/site\n", "espnet 202609"), ("", r"\?")])
def test_an_environment_of_another_version_is_told(place: Path, says: str, told: str) -> None:
    write_program(place / "bin" / "python", says)
    with pytest.raises(environment.EnvironmentMissing, match=f"espnet.train.==202611: {told}"):
        environment.find()


def test_another_python_than_3_12_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for says in ("3.11", "pyenv: python3.12: command not found"):
        monkeypatch.setenv("PYTHON312", str(write_program(tmp_path / "python", says)))
        with pytest.raises(environment.EnvironmentMissing, match=rf"{says}\. Name one: make"):
            environment.find_python()
    monkeypatch.setenv("PYTHON312", "/no/python")
    with pytest.raises(environment.EnvironmentMissing, match="No such file"):
        environment.find_python()


def test_too_small_a_disk_is_told_before_anything_is_fetched(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON312", str(write_program(tmp_path / "python", "3.12")))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 3 * 10**9))
    with pytest.raises(environment.EnvironmentMissing, match=r"needs 12 GB.*has 3\.0 GB left"):
        environment.make()
    assert not place.exists()


def test_a_program_that_is_missing_is_told_before_anything_is_fetched(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON312", str(write_program(tmp_path / "python", "3.12")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "NEEDED_GB", 0)
    with pytest.raises(environment.EnvironmentMissing, match="apt-get install sox"):
        environment.make()
    assert not place.exists()


def test_a_folder_with_something_else_in_it_is_left_alone(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON312", str(write_program(tmp_path / "python", "3.12")))
    monkeypatch.setattr(environment, "NEEDED_GB", 0)
    place.mkdir()
    (place / "thesis.tex").touch()
    with pytest.raises(environment.EnvironmentMissing, match="left alone"):
        environment.make()
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]


def test_it_needs_only_the_standard_library(place: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-S", environment.__file__],
        env={"UPSTREAM_ENV": str(place), "PYTHON312": "/no/python"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("make: espnet 202611 needs Python 3.12")
