"""Code that was deleted while its job was queued has a place to be mounted over."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from launcher.containers.base import Mount
from launcher.errors import LauncherError
from launcher.mounts.targets import held_targets


@pytest.fixture
def tree(hostile_path: Path) -> Path:
    """Return a tree with a file and a folder over which a snapshot is mounted."""
    for top in ("tree", "snapshot"):
        (hostile_path / top / "deep/lib").mkdir(parents=True)
        (hostile_path / top / "deep/run.py").write_text("run")
        (hostile_path / top / "deep/lib/a.py").write_text("a")
    return hostile_path / "tree"


def mounts(tree: Path) -> list[Mount]:
    names = ("deep/run.py", "deep/lib")
    snapshot = [Mount(tree.parent / "snapshot" / name, tree / name, True) for name in names]
    elsewhere = Mount(tree.parent / "snapshot", tree.parent / "nowhere/at/all")
    return [Mount(tree, tree), *snapshot, elsewhere]


def listing(tree: Path) -> list[str]:
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))


def test_what_is_there_is_left_alone(tree: Path) -> None:
    before = listing(tree)
    with held_targets(mounts(tree)):
        assert listing(tree) == before
    assert listing(tree) == before
    assert (tree / "deep/run.py").read_text() == "run"
    assert not (tree.parent / "nowhere").exists()


def test_what_was_deleted_has_a_place_while_the_stage_runs(tree: Path) -> None:
    shutil.rmtree(tree / "deep")
    with held_targets(mounts(tree)):
        assert listing(tree) == ["deep", "deep/lib", "deep/run.py"]
        assert (tree / "deep/lib").is_dir()
        assert (tree / "deep/run.py").read_bytes() == b""
    assert listing(tree) == []


def test_a_place_stays_as_long_as_a_job_needs_it(tree: Path) -> None:
    (tree / "deep/run.py").unlink()
    shutil.rmtree(tree / "deep/lib")
    first, second = held_targets(mounts(tree)), held_targets(mounts(tree))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert listing(tree) == ["deep", "deep/lib", "deep/run.py"]
    second.__exit__(None, None, None)
    assert listing(tree) == ["deep"]


def test_a_place_that_a_killed_job_left_is_taken_away_by_the_next(tree: Path) -> None:
    (tree / "deep/run.py").unlink()
    holding = held_targets(mounts(tree))
    holding.__enter__()
    left = (tree / "deep/run.py").stat().st_mtime_ns
    holding.__exit__(None, None, None)
    (tree / "deep/run.py").touch()
    os.utime(tree / "deep/run.py", ns=(left, left))
    with held_targets(mounts(tree)):
        assert (tree / "deep/run.py").exists()
    assert not (tree / "deep/run.py").exists()


def test_what_came_back_meanwhile_or_was_written_stays(tree: Path) -> None:
    shutil.rmtree(tree / "deep")
    with held_targets(mounts(tree)):
        (tree / "deep/run.py").write_text("checked out again")
        (tree / "deep/results.txt").write_text("of the stage")
    assert listing(tree) == ["deep", "deep/results.txt", "deep/run.py"]


def test_an_empty_file_of_the_code_is_no_placeholder(tree: Path) -> None:
    (tree / "deep/run.py").write_text("")
    with held_targets(mounts(tree)):
        pass
    assert (tree / "deep/run.py").exists()


@pytest.mark.parametrize("name", ["deep/run.py", "deep/lib", "deep"])
def test_what_became_something_else_is_told(tree: Path, name: str) -> None:
    path = tree / name
    if name == "deep/run.py":
        path.unlink()
        path.mkdir()
    elif name == "deep/lib":
        shutil.rmtree(path)
        path.touch()
    else:
        path.rename(tree / "other")
        path.symlink_to("other")
    with (
        pytest.raises(LauncherError, match=r"at submission and is something else now"),
        held_targets(mounts(tree)),
    ):
        pass


def test_where_nothing_can_be_put_that_is_told(tree: Path) -> None:
    shutil.rmtree(tree / "deep")
    (tree / "deep").touch()
    with (
        pytest.raises(LauncherError, match=r"run\.py was part of the code.*launch again"),
        held_targets(mounts(tree)),
    ):
        pass


def test_without_locks_a_place_is_left_rather_than_pulled_away(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tree / "deep/run.py").unlink()
    with held_targets(mounts(tree)):
        assert (tree / "deep/run.py").exists()
    assert (tree / "deep/run.py").exists()
