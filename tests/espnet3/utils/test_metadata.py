"""What a stage's metadata says of its code and of what it runs in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from espnet3.utils.metadata import _container, git_state

COMMIT, OTHER = "1" * 40, "2" * 40


def test_where_git_is_not_the_commit_is_the_launchers(
    hostile_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_path / "lib" / "espnet3"
    folder.mkdir(parents=True)
    told = {str(hostile_path): COMMIT, str(hostile_path / "lib"): f"{OTHER}-dirty"}
    monkeypatch.setenv("PATH", "/nonexistent")
    assert git_state(folder) is None
    for damaged in ("", "[]", "{"):
        monkeypatch.setenv("LAUNCHER_GIT_COMMITS", damaged)
        assert git_state(folder) is None
    monkeypatch.setenv("LAUNCHER_GIT_COMMITS", json.dumps(told))
    state = git_state(folder)  # the root that is nearest
    assert state is not None
    assert (state["commit"], state["dirty"], state["changed_files"]) == (OTHER, True, [])
    state = git_state(hostile_path / "recipe")
    assert state is not None
    assert (state["commit"], state["dirty"]) == (COMMIT, False)
    assert git_state(Path("/elsewhere")) is None


def test_where_git_is_it_has_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setenv("LAUNCHER_GIT_COMMITS", json.dumps({str(tmp_path): OTHER}))
    state = git_state(tmp_path)
    assert state is not None
    assert state["commit"] != OTHER
    assert state["branch"]


@pytest.mark.parametrize(
    ("told", "around", "expected"),
    [
        (None, False, {}),
        (None, True, {"runtime": "docker"}),
        ("none", False, {"runtime": "none"}),
        ("none", True, {"runtime": "none", "host": "docker"}),
        ("apptainer", True, {"runtime": "apptainer"}),
    ],
)
def test_a_stage_runs_in_what_its_launcher_says(
    told: str | None,
    around: bool,
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine that is a container itself is not what the stage was put into."""
    monkeypatch.setattr("espnet3.utils.metadata._CONTAINER_VARIABLES", ())
    monkeypatch.setattr(Path, "exists", lambda path: around and str(path) == "/.dockerenv")
    monkeypatch.delenv("LAUNCHER_CONTAINER", raising=False)
    if told is not None:
        monkeypatch.setenv("LAUNCHER_CONTAINER", told)
    assert _container() == expected
