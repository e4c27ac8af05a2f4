"""What a shell is offered, and that the shells' own scripts ask for it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.completion import SCRIPTS, offers
from tests.conftest import REPOSITORY, lacks
from tests.launcher.test_view import make_launch


@pytest.fixture
def workplace(hostile_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_launch(hostile_path / "made", ["prepare", "fit"])
    (hostile_path / ".launches").mkdir()
    made.directory.rename(hostile_path / ".launches" / "20260101-tiny")
    (hostile_path / "egs3").mkdir()
    monkeypatch.chdir(hostile_path / "egs3")
    return hostile_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status"]),
        (["status", "20"], ["20260101-tiny"]),
        (["logs", ""], ["20260101-tiny", "fit", "prepare"]),
        (["logs", "20260101-tiny", "f"], ["fit"]),
        (["status", "--w"], ["--watch"]),
        (["--cluster", "sl"], ["slurm"]),
        (["run", "--container", "p"], ["podman"]),
        (["--fo"], ["--follow"]),
        (["image", "p"], ["pin", "pull", "push"]),
        (["completion", "z"], ["zsh"]),
        (["status", "--recipe", ""], []),
        ([], sorted(offers([""]))),
    ],
)
def test_what_is_offered(workplace: Path, words: list[str], expected: list[str]) -> None:
    assert offers(words) == expected


def test_damaged_launches_are_passed_over(workplace: Path) -> None:
    (workplace / ".launches" / "20260101-tiny" / "launch.json").write_text("{")
    assert offers(["logs", ""]) == ["20260101-tiny"]


@pytest.mark.parametrize("program", ["launcher", "python -m launcher"])
def test_bash_offers_it(workplace: Path, tmp_path: Path, program: str) -> None:
    words = [*program.split(), "logs", "20260101-tiny", "f"]
    function = "_launcher" if program == "launcher" else "_launcher_python"
    lines = [
        SCRIPTS["bash"],
        f"COMP_WORDS=({shlex.join(words)})",
        f"COMP_CWORD={len(words) - 1}",
        function,
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    assert run_shell("bash", "\n".join(lines), tmp_path) == ["fit"]


def test_fish_offers_it(workplace: Path, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        lacks("no fish here: apt-get install fish")
    script = f"{SCRIPTS['fish']}\ncomplete --do-complete 'launcher logs 20260101-tiny f'\n"
    assert run_shell("fish", script, tmp_path) == ["fit"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_one_of_that_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        lacks(f"no {shell} here: apt-get install {shell}")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    subprocess.run([shell, "-n", str(script)], check=True, timeout=30)


def run_shell(shell: str, script: str, folder: Path) -> list[str]:
    """Run a script in a shell for which ``launcher`` and ``python`` are this project's."""
    programs = folder / "bin"
    programs.mkdir()
    for name, command in (("launcher", "-m launcher "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command}"$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    environment["HOME"] = str(folder)
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
