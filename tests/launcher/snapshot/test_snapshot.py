"""The code as it was at submission: what is taken, how it is mounted, what is recorded."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from launcher.errors import ConfigError, LauncherError, RecordError
from launcher.snapshot import (
    SnapshotPlan,
    changed_since,
    content_digest,
    plan_snapshot,
    take_snapshot,
    write_manifest,
)
from launcher.snapshot import copy as snapshot_copy
from launcher.snapshot import plan as snapshot_plan
from launcher.snapshot.record import commits
from tests.conftest import lacks

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
ODD_NAMES = (
    "line\nbreak.py",
    "quo'te\".py",
    "%j %A:é.py",
    os.fsdecode(b"latin-\xe9.py"),
    "-n",
    "*?[a].py",
    " lead",
    "\\back",
)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def write(folder: Path, **files: str) -> None:
    write_all(folder, files)


def write_all(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def commit(folder: Path) -> None:
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "as it is")


@pytest.fixture
def repo(hostile_path: Path) -> Path:
    """Return a committed repository: a recipe in a subfolder, code around it, results ignored."""
    repo = hostile_path / "repo"
    write_all(
        repo,
        {
            ".gitignore": "exp/\n__pycache__/\n*.ignored\n/.venv/\n",
            "pyproject.toml": "p",
            "lib/core/a.py": "a",
            "lib/b.py": "b",
            "egs/one/asr/run.py": "run",
            "egs/one/asr/conf/training.yaml": "t",
            "egs/one/asr/src/system.py": "s",
            "egs/two/asr/run.py": "two",
        },
    )
    commit(repo)
    return repo


@pytest.fixture
def recipe(repo: Path) -> Path:
    return repo / "egs/one/asr"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "launch" / "code"


def plan(repo: Path, directory: Path, *writable: Path, mode: str = "git") -> SnapshotPlan:
    return plan_snapshot(mode, [repo], [repo / "egs/one/asr", *writable], directory)


def targets(plan: SnapshotPlan, top: Path) -> list[str]:
    return [str(mount.target.relative_to(top)) for mount in plan.mounts]


def names(plan: SnapshotPlan) -> set[str]:
    return {entry.name for entry in plan.entries}


def seen(plan: SnapshotPlan, path: Path) -> Path:
    """Return what a stage sees at a path: what is mounted over it, else the path itself."""
    for mount in plan.mounts:
        if path == mount.target or mount.target in path.parents:
            return mount.source / path.relative_to(mount.target)
    return path


# What is taken


def test_each_root_names_its_commit(repo: Path, directory: Path) -> None:
    head = git(repo, "rev-parse", "HEAD").strip()
    assert commits(plan(repo, directory)) == {str(repo): head}
    assert commits(plan(repo, directory, mode="copy")) == {}
    (repo / "lib/b.py").write_text("edited")
    assert commits(plan(repo, directory)) == {str(repo): f"{head}-dirty"}
    git(repo, "checkout", "-q", "lib/b.py")
    write_all(repo, {"lib/new.py": "new"})
    assert commits(plan(repo, directory)) == {str(repo): f"{head}-dirty"}


def test_what_lies_in_the_tree_is_taken_whatever_is_committed(repo: Path, directory: Path) -> None:
    (repo / "lib/b.py").write_text("edited")
    (repo / "lib/core/a.py").unlink()
    write_all(repo, {"lib/new.py": "new", "lib/x.ignored": "", "lib/staged.py": "staged"})
    git(repo, "add", "lib/staged.py")
    (repo / "lib/staged.py").write_text("staged, then edited")
    plan_ = plan(repo, directory)
    take_snapshot(plan_)
    assert "lib/core/a.py" not in names(plan_)
    assert "lib/x.ignored" not in names(plan_)
    taken = directory / "0/lib"
    assert (taken / "b.py").read_text() == "edited"
    assert (taken / "new.py").read_text() == "new"
    assert (taken / "staged.py").read_text() == "staged, then edited"


def test_planning_writes_nothing(repo: Path, directory: Path) -> None:
    def everything() -> list[tuple[str, int]]:
        return [(str(path), path.stat().st_mtime_ns) for path in sorted(repo.rglob("*"))]

    os.utime(repo / "lib/b.py")  # git would like to refresh its index
    before = everything()
    plan(repo, directory)
    assert everything() == before
    assert not directory.parent.exists()


def test_taking_leaves_git_as_it_is(repo: Path, directory: Path) -> None:
    (repo / "lib/b.py").write_text("edited")
    os.utime(repo / "lib/core/a.py")
    before = (repo / ".git/index").stat().st_mtime_ns
    take_snapshot(plan(repo, directory))
    assert (repo / ".git/index").stat().st_mtime_ns == before


def test_modes_links_and_times_are_kept(repo: Path, directory: Path) -> None:
    (repo / "lib/b.py").chmod(0o775)
    os.utime(repo / "lib/b.py", ns=(1, 1_234_567_890_123_456_789))
    (repo / "lib/link.py").symlink_to("./core//a.py")
    (repo / "lib/out").symlink_to("/nowhere/at all")
    take_snapshot(plan(repo, directory))
    taken = directory / "0/lib"
    assert (taken / "b.py").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.readlink(taken / "link.py") == "./core//a.py"  # noqa: PTH115  (Path would tidy it)
    assert (taken / "out").readlink() == Path("/nowhere/at all")
    for path in [directory, *directory.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_symlink():
            assert mode == (0o700 if path.is_dir() or path.name == "b.py" else 0o600), path


@pytest.mark.parametrize("mode", ["git", "copy"])
def test_hostile_names(repo: Path, recipe: Path, directory: Path, mode: str) -> None:
    for name in ODD_NAMES:
        write_all(recipe, {name: name and "top", f"{name}.d/{name}": "below"})
    commit(repo)
    (recipe / ODD_NAMES[0]).write_text("edited")
    write_all(recipe, {"untracked\n\udce9": "new"})
    plan_ = plan(repo, directory, mode=mode)
    record = take_snapshot(plan_)
    for name in ODD_NAMES[1:]:
        assert seen(plan_, recipe / name).read_text() == "top"
        assert seen(plan_, recipe / f"{name}.d" / name).read_text() == "below"
        assert (recipe / f"{name}.d") in [mount.target for mount in plan_.mounts]
    assert seen(plan_, recipe / ODD_NAMES[0]).read_text() == "edited"
    assert changed_since(record) == []
    (recipe / ODD_NAMES[3]).write_text("changed")
    assert changed_since(record) == ["egs/one/asr/latin-\\xe9.py"]
    if mode == "git":
        assert record["roots"][0]["changed"] == ["egs/one/asr/line\\nbreak.py"]
        assert record["roots"][0]["untracked"] == ["egs/one/asr/untracked\\n\\xe9"]
    text = json.dumps(record)
    text.encode()
    assert json.loads(text) == record


def test_what_tracks_a_path_that_became_something_else(repo: Path, directory: Path) -> None:
    """A tracked folder that is now a link to data does not have the data copied."""
    elsewhere = repo.parent / "elsewhere"
    write_all(elsewhere, {"a.py": "large data"})
    shutil.rmtree(repo / "lib/core")
    (repo / "lib/core").symlink_to(elsewhere)
    (repo / "lib/b.py").unlink()
    write_all(repo, {"lib/b.py/now/a/folder.py": "f"})
    plan_ = plan(repo, directory)
    take_snapshot(plan_)
    assert (directory / "0/lib/core").is_symlink()
    assert (directory / "0/lib/b.py/now/a/folder.py").read_text() == "f"


def test_a_merge_conflict_is_taken_as_it_lies(repo: Path, directory: Path) -> None:
    git(repo, "checkout", "-q", "-b", "other")
    (repo / "lib/b.py").write_text("theirs")
    commit(repo)
    git(repo, "checkout", "-q", "main")
    (repo / "lib/b.py").write_text("ours")
    commit(repo)
    subprocess.run(["git", *IDENTITY, "merge", "other"], cwd=repo, capture_output=True)
    plan_ = plan(repo, directory)
    record = take_snapshot(plan_)
    assert "<<<<<<<" in (directory / "0/lib/b.py").read_text()
    assert len(plan_.entries) == len(names(plan_))
    assert record["roots"][0]["changed"] == ["lib/b.py"]


def test_a_repository_without_commits(tmp_path: Path, directory: Path) -> None:
    repo = tmp_path / "new"
    write_all(repo, {"egs/one/asr/run.py": "r", "staged.py": "s", "x.py": "x"})
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "staged.py")
    record = take_snapshot(plan(repo, directory))
    root = record["roots"][0]
    assert (root["commit"], root["branch"], root["dirty"], root["files"]) == (None, "main", True, 3)


def test_submodules_and_clones_are_taken_with_their_changes(repo: Path, directory: Path) -> None:
    other = repo.parent / "other"
    write_all(other, {"mod/m.py": "m", "top.py": "t", ".gitignore": "*.tmp"})
    commit(other)
    git(repo, "submodule", "add", "-q", str(other), "sub/module")
    git(repo, "submodule", "add", "-q", str(other), "sub/absent")
    commit(repo)
    git(repo, "submodule", "deinit", "-q", "-f", "sub/absent")
    git(repo, "clone", "-q", str(other), "lib/clone")
    (repo / "sub/module/mod/m.py").write_text("edited in the submodule")
    (repo / "lib/clone/top.py").write_text("edited in the clone")
    write_all(repo, {"sub/module/x.tmp": ""})
    plan_ = plan(repo, directory)
    record = take_snapshot(plan_)
    assert seen(plan_, repo / "sub/module/mod/m.py").read_text() == "edited in the submodule"
    assert seen(plan_, repo / "lib/clone/top.py").read_text() == "edited in the clone"
    assert "sub/module/x.tmp" not in names(plan_)
    root = record["roots"][0]
    assert set(root["changed"]) == {"sub/module/mod/m.py", "lib/clone/top.py"}
    assert [nested["path"] for nested in root["nested"]] == [
        str(repo / "sub/module"),
        str(repo / "lib/clone"),
    ]
    assert root["nested"][0]["commit"] == git(other, "rev-parse", "HEAD")
    copy = repo.parent / "copy"
    git(repo.parent, "clone", "-q", "--recurse-submodules", "repo", "copy")
    git(copy, "clone", "-q", str(other), "lib/clone")
    shutil.rmtree(copy / ".git")  # for git to take it as what it is, a folder with files
    git(copy, "apply", record["diff"])
    assert (copy / "sub/module/mod/m.py").read_text() == "edited in the submodule"
    assert (copy / "lib/clone/top.py").read_text() == "edited in the clone"


def test_a_clone_among_results_is_data(repo: Path, recipe: Path, directory: Path) -> None:
    other = repo.parent / "other"
    write_all(other, {"wav/1.wav": "m"})
    commit(other)
    git(repo, "clone", "-q", str(other), "egs/one/asr/downloads/corpus")
    plan_ = plan(repo, directory)
    assert not any("downloads" in name for name in names(plan_))
    assert not any("downloads" in target for target in targets(plan_, repo))
    assert plan_.roots[0].nested == ()


def test_a_submodule_is_one_mount_and_git_works_in_it(repo: Path, directory: Path) -> None:
    other = repo.parent / "other"
    write_all(other, {"m.py": "m"})
    commit(other)
    git(repo, "submodule", "add", "-q", str(other), "third/module")
    commit(repo)
    plan_ = plan(repo, directory)
    record = take_snapshot(plan_)
    assert "third" in targets(plan_, repo)
    git_file = seen(plan_, repo / "third/module/.git")
    assert git_file.read_text() == (repo / "third/module/.git").read_text()
    assert not any(name.endswith("/.git") for name in names_in(record))


def names_in(record: dict) -> list[str]:
    return [entry[1] for entry in json.loads(Path(record["manifest"]).read_text())["entries"]]


def test_a_worktree(repo: Path, directory: Path) -> None:
    git(repo, "worktree", "add", "-q", "../tree", "-b", "side")
    tree = repo.parent / "tree"
    (tree / "lib/b.py").write_text("on the side")
    plan_ = plan_snapshot("git", [tree], [tree / "egs/one/asr"], directory)
    record = take_snapshot(plan_)
    assert seen(plan_, tree / "lib/b.py").read_text() == "on the side"
    assert record["roots"][0]["branch"] == "side"


def test_a_folder_inside_a_larger_repository(repo: Path, recipe: Path, directory: Path) -> None:
    (recipe / "conf/training.yaml").write_text("edited")
    (repo / "lib/b.py").write_text("edited, and not below the root")
    plan_ = plan_snapshot("git", [recipe], [recipe], directory)
    record = take_snapshot(plan_)
    assert names(plan_) == {"run.py", "conf/training.yaml", "src/system.py"}
    assert record["roots"][0]["changed"] == ["conf/training.yaml"]
    assert record["roots"][0]["commit"] == git(repo, "rev-parse", "HEAD")


def test_launch_directories_are_no_code(repo: Path, tmp_path: Path) -> None:
    launches = repo / "runs"  # neither ignored nor where launches usually are
    write_all(launches / "20261122-x", {"launch.json": "{}", "code/0/a.py": "", "events/a": ""})
    plan_ = plan(repo, launches / "20261123-y" / "code")
    assert not any(name.startswith("runs/") for name in names(plan_))
    assert not any(target.startswith("runs") for target in targets(plan_, repo))
    copied = plan(repo, launches / "20261123-y" / "code", mode="copy")
    assert not any(name.startswith("runs/") for name in names(copied))


# Outside of git, and where git says no


def test_outside_of_git_nothing_is_copied_and_that_is_said(
    recipe_dir: Path, directory: Path
) -> None:
    plan_ = plan_snapshot("git", [recipe_dir], [recipe_dir], directory)
    assert (plan_.mode, plan_.mounts) == ("none", ())
    assert "snapshot=copy" in plan_.notices[0]
    record = take_snapshot(plan_)
    assert [path.name for path in directory.iterdir()] == ["manifest.json"]
    assert (record["copied"], record["diff"]) == (False, None)
    (recipe_dir / "run.py").write_text("edited")
    assert changed_since(record) == ["run.py"]


def test_a_recipe_that_git_ignores_is_told(repo: Path, recipe: Path, directory: Path) -> None:
    write_all(repo, {"exp/mine/run.py": "r"})
    plan_ = plan_snapshot("git", [repo], [repo / "exp/mine"], directory)
    assert any("git ignores" in notice for notice in plan_.notices)


def test_without_git_installed(
    repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(directory))
    assert plan(repo, directory).mode == "none"


def test_a_tree_of_another_user_is_refused_with_what_to_type(
    repo: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        lacks("giving files away needs root")
    os.chown(repo, 12345, 12345)
    with pytest.raises(
        LauncherError, match=r"belongs to another user.*safe\.directory.*snapshot="
    ) as refused:
        plan_snapshot("git", [repo / "lib"], [], directory)
    advice = re.search(r"git config .*?(?=\. Or)", str(refused.value))
    assert advice is not None
    monkeypatch.setenv("HOME", str(tmp_path))
    subprocess.run(advice.group(), shell=True, check=True)
    assert plan(repo, directory).mounts
    assert plan(repo, directory, mode="copy").mounts


def test_a_damaged_repository_is_refused_with_gits_words(repo: Path, directory: Path) -> None:
    (repo / ".git/index").write_bytes(b"not an index")
    with pytest.raises(LauncherError, match="git ls-files"):
        plan(repo, directory)


def test_the_environment_does_not_lead_git_elsewhere(
    repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
        monkeypatch.setenv(name, str(directory))
    assert "lib/b.py" in names(plan(repo, directory))


def test_nothing_of_the_repositorys_own_is_started(
    repo: Path, directory: Path, tmp_path: Path
) -> None:
    mark, script = tmp_path / "started", tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    (repo / "lib/b.py").write_text("edited")
    git(repo, "config", "core.fsmonitor", str(script))
    git(repo, "config", "diff.external", str(script))
    for name in ("post-index-change", "fsmonitor-watchman", "query-watchman"):
        shutil.copy(script, repo / ".git/hooks" / name)
    git(repo, "status")
    assert mark.exists()  # it would have been
    mark.unlink()
    take_snapshot(plan(repo, directory))
    assert not mark.exists()


def test_a_filter_that_is_not_installed_does_not_stop_a_launch(repo: Path, directory: Path) -> None:
    """As a clone with Git LFS where git-lfs is missing: its pointers are taken as they are."""
    write_all(repo, {".gitattributes": "*.bin filter=lfs diff=lfs", "m.bin": "pointer"})
    commit(repo)
    git(repo, "config", "filter.lfs.clean", "no-such-program-lfs clean %f")
    git(repo, "config", "filter.lfs.required", "true")
    (repo / "m.bin").write_text("pointes")
    (repo / "lib/b.py").write_text("edited\n")
    record = take_snapshot(plan(repo, directory))
    assert (directory / "0/m.bin").read_text() == "pointes"
    assert record["roots"][0]["changed"] == ["lib/b.py", "m.bin"]
    git(repo.parent, "clone", "-q", "repo", "clone")
    git(repo.parent / "clone", "apply", record["diff"])
    assert (repo.parent / "clone/m.bin").read_text() == "pointes"


# How it is mounted


def test_mounts_are_few(repo: Path, directory: Path) -> None:
    assert targets(plan(repo, directory), repo) == [
        ".gitignore",
        "egs/one/asr/conf",
        "egs/one/asr/run.py",
        "egs/one/asr/src",
        "egs/two",
        "lib",
        "pyproject.toml",
    ]


def test_caches_hide_nothing_and_ignored_files_are_not_hidden(repo: Path, directory: Path) -> None:
    write_all(
        repo,
        {
            "lib/__pycache__/b.pyc": "",
            "lib/.b.py.swp": "vim",
            "egs/two/old/__pycache__/gone.pyc": "",
            "egs/two/asr/data.ignored": "",
        },
    )
    found = targets(plan(repo, directory), repo)
    assert "lib" in found
    assert "egs/two/asr/run.py" in found
    (repo / "egs/two/asr/data.ignored").unlink()
    assert "egs/two" in targets(plan(repo, directory), repo)
    (repo / "egs/two/results").mkdir()  # empty as yet
    assert "egs/two/asr" in targets(plan(repo, directory), repo)


def test_a_root_of_code_alone_is_one_mount(repo: Path, tmp_path: Path, directory: Path) -> None:
    git(repo, "worktree", "add", "-q", "../tree", "-b", "side")
    tree = repo.parent / "tree"
    plan_ = plan_snapshot("git", [repo, tree], [repo / "egs/one/asr"], directory)
    take_snapshot(plan_)
    assert tree in [mount.target for mount in plan_.mounts]
    assert seen(plan_, tree / ".git").read_text() == (tree / ".git").read_text()


def test_folders_that_stages_write_to_stay_real(repo: Path, recipe: Path, directory: Path) -> None:
    write_all(recipe, {"exp/tracked/model.txt": "m", "exp/tracked/other": "o", "notes/n.txt": "n"})
    git(repo, "add", "-f", "egs/one/asr/exp/tracked/model.txt", "egs/one/asr/notes/n.txt")
    git(repo, "commit", "-q", "-m", "results")
    write_all(recipe, {"notes/today.txt": "neither tracked nor ignored"})
    plan_ = plan(repo, directory, recipe / "notes", recipe / "exp/not yet", repo / "lib/core/deep")
    assert [name for name in targets(plan_, repo) if name.startswith("egs/one")] == [
        "egs/one/asr/conf",
        "egs/one/asr/exp/tracked/model.txt",
        "egs/one/asr/notes/n.txt",
        "egs/one/asr/run.py",
        "egs/one/asr/src",
    ]
    assert [name for name in targets(plan_, repo) if name.startswith("lib")] == [
        "lib/b.py",
        "lib/core/a.py",
    ]


def test_a_run_py_among_results_makes_no_recipe(repo: Path, recipe: Path, directory: Path) -> None:
    write_all(recipe, {"work/run.py": "copied there by a stage", "work/code/x.py": "x"})
    plan_ = plan(repo, directory, recipe / "work")
    assert not any("work" in target for target in targets(plan_, repo))


def test_results_above_the_recipe_do_not_split_everything(repo: Path, directory: Path) -> None:
    plan_ = plan(repo, directory, repo, repo / "egs")
    assert "lib" in targets(plan_, repo)


def test_links_are_not_mounted_over(repo: Path, recipe: Path, directory: Path) -> None:
    (recipe / "steps").symlink_to("../../../lib")
    plan_ = plan(repo, directory)
    assert "egs/one/asr/steps" in names(plan_)
    assert "egs/one/asr/steps" not in targets(plan_, repo)


def test_a_root_inside_another(repo: Path, directory: Path) -> None:
    """The recipe has a repository of its own inside the launcher's checkout, which ignores it."""
    inner = repo / "exp/mine"
    write_all(inner, {"run.py": "inner", "src/s.py": "s"})
    commit(inner)
    plan_ = plan_snapshot("git", [inner, repo], [inner], directory)
    record = take_snapshot(plan_)
    assert seen(plan_, inner / "src/s.py").read_text() == "s"
    assert seen(plan_, repo / "lib/b.py").read_text() == "b"
    assert [root["files"] for root in record["roots"]] == [2, 8]
    assert not any(mount.target in (repo, repo / "exp") for mount in plan_.mounts)
    assert [entry.name for entry in plan_.entries if entry.root == 0] == ["run.py", "src/s.py"]


def test_many_mounts_are_told(repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(repo, {"lib/x.ignored": "", **{f"lib/{n}.py": "" for n in range(20)}})
    monkeypatch.setattr(snapshot_plan, "MANY_MOUNTS", 20)
    assert "22 of them in" in plan(repo, directory).notices[0]


@pytest.mark.parametrize("seed", range(15))
def test_whatever_the_tree_code_is_as_submitted_and_results_are_real(
    seed: int, tmp_path: Path, directory: Path
) -> None:
    chance = random.Random(seed)
    repo = tmp_path / "repo"
    write_all(repo, {".gitignore": "*.ignored\nscratch/\n", "egs/one/asr/run.py": "run"})
    folders = ["", "egs/one/asr/"]
    for _ in range(12):
        parts = ["a", "b", "scratch", "__pycache__", "conf", "exp"]
        folders.append(f"{chance.choice(folders)}{chance.choice(parts)}/")
    suffixes = [".py", ".ignored", ".yaml"]
    files = [f"{chance.choice(folders)}{n}{chance.choice(suffixes)}" for n in range(30)]
    write_all(repo, dict.fromkeys(files, "old"))
    commit(repo)
    for name in chance.sample(files, 6):
        (repo / name).unlink()
    for n in range(8):
        folder = repo / chance.choice(folders)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"new{n}{chance.choice(suffixes)}").write_text("old")
    writable = [repo / folder / "out" for folder in chance.sample(folders, 2)]
    writable += [repo / chance.choice(folders[2:])]
    plan_ = plan(repo, directory, *writable)
    take_snapshot(plan_)

    listed = git(repo, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    tracked = git(repo, "ls-files").splitlines()
    before = {
        path: path.read_text()
        for path in repo.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
    for path in before:
        path.write_text("new")
    results = [each for each in writable if each not in (repo, repo / "egs/one/asr", repo / "egs")]
    results += [repo / "egs/one/asr/exp"]
    results = [each for each in results if not (repo / "egs/one/asr").is_relative_to(each)]
    for path, old in before.items():
        name = str(path.relative_to(repo))
        is_result = any(path.is_relative_to(each) for each in results)
        is_cache = "__pycache__" in path.parent.parts
        if name in tracked or (name in listed and not is_result and not is_cache):
            assert seen(plan_, path).read_text() == old, name
        elif not is_cache:
            assert seen(plan_, path).read_text() == "new", name
    for folder in (repo / "egs/one/asr", *writable):
        assert seen(plan_, folder / "made by a stage") == folder / "made by a stage"
    for mount in plan_.mounts:
        assert mount.source.is_dir() == mount.target.is_dir()
        assert mount.read_only
        assert not mount.target.is_symlink()
        assert not any(other.target in mount.target.parents for other in plan_.mounts)


# snapshot=copy


def test_copy_takes_all_but_results_caches_and_environments(
    repo: Path, recipe: Path, directory: Path
) -> None:
    shutil.rmtree(repo / ".git")
    write_all(
        repo,
        {
            "lib/x.ignored": "no git, so not ignored",
            "node_modules/a/b.js": "",
            ".venv/lib/x.py": "",
            "env-of-mine/pyvenv.cfg": "",
            "env-of-mine/lib/x.py": "",
            "egs/one/asr/exp/model": "",
            "egs/one/asr/data/wav": "",
            "egs/one/asr/stats/s": "",
            "lib/__pycache__/b.pyc": "",
        },
    )
    plan_ = plan(repo, directory, recipe / "stats", mode="copy")
    record = take_snapshot(plan_)
    assert names(plan_) == {
        *(".gitignore", "pyproject.toml", "lib/core/a.py", "lib/b.py", "lib/x.ignored"),
        *("egs/one/asr/run.py", "egs/one/asr/conf/training.yaml", "egs/one/asr/src/system.py"),
        "egs/two/asr/run.py",
    }
    assert {"lib", "egs/two"} < set(targets(plan_, repo))
    assert record["roots"][0]["mode"] == "copy"
    assert "commit" not in record["roots"][0]


@pytest.mark.parametrize("mode", ["git", "copy"])
def test_too_much_is_refused_with_what_to_do(
    repo: Path, directory: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(repo, {f"corpus/{n}.wav": "x" * 1000 for n in range(50)})
    monkeypatch.setattr(snapshot_plan, "MAX_FILES", 40)
    with pytest.raises(ConfigError, match=r"most of it in corpus.*snapshot=none"):
        plan(repo, directory, mode=mode)
    assert plan(repo, directory, mode="none").mounts == ()
    monkeypatch.setattr(snapshot_plan, "MAX_FILES", 1000)
    monkeypatch.setattr(snapshot_plan, "MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="most of it in corpus"):
        plan(repo, directory, mode=mode)
    plan_ = plan(repo, directory, repo / "corpus", mode=mode)  # results do not count
    assert not any("corpus" in name for name in names(plan_))


def test_without_a_copy_what_is_large_is_not_hashed(
    repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_plan, "MAX_HASHED_BYTES", 2000)
    assert "lib/b.py" in names(plan(repo, directory, mode="none"))
    write_all(repo, {"corpus/a.wav": "x" * 2000})
    found = names(plan(repo, directory, mode="none"))
    assert "lib/b.py" in found
    assert "corpus/a.wav" not in found
    shutil.rmtree(repo / ".git")
    assert names(plan(repo, directory, mode="none")) == set()


# Whole or not at all


def test_a_failure_leaves_nothing(
    repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_ = plan(repo, directory)
    (repo / "pyproject.toml").unlink()
    with pytest.raises(LauncherError, match=r"pyproject\.toml was deleted or replaced"):
        take_snapshot(plan_)
    assert list(directory.parent.iterdir()) == []


def test_a_full_disk_leaves_nothing(repo: Path, small_disk: Path) -> None:
    (repo / "lib/b.py").write_text("edited")
    write_all(repo, {"lib/large.py": "x" * 300_000})
    with pytest.raises(RecordError, match=r"No space left.*snapshot=none"):
        take_snapshot(plan(repo, small_disk / "code"))
    assert [path.name for path in small_disk.iterdir() if path.name != "lost+found"] == []


def test_a_snapshot_is_made_once(repo: Path, directory: Path) -> None:
    take_snapshot(plan(repo, directory))
    with pytest.raises(RecordError, match="there already"):
        take_snapshot(plan(repo, directory))
    assert (directory / "0/lib/b.py").exists()


def test_a_file_that_vanishes_from_a_whole_folder_is_left_out(repo: Path, directory: Path) -> None:
    plan_ = plan(repo, directory)
    shutil.rmtree(repo / "lib/core")
    record = take_snapshot(plan_)
    assert "lib/core/a.py" not in names_in(record)
    assert (directory / "0/lib/b.py").exists()


def test_a_file_that_changes_while_it_is_copied_is_copied_again(
    repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pour = snapshot_copy._pour
    edits = iter(["first", "second, longer"])

    def pour_and_edit(source: int, target: int | None, sha256: object) -> int:
        size = pour(source, target, sha256)
        path = Path(f"/proc/self/fd/{source}").readlink()
        if path.name == "b.py" and (text := next(edits, None)):
            path.write_text(text)
        return size

    monkeypatch.setattr(snapshot_copy, "_pour", pour_and_edit)
    record = take_snapshot(plan(repo, directory))
    assert (directory / "0/lib/b.py").read_text() == "second, longer"
    assert changed_since(record) == []


def test_a_file_that_changes_all_the_time_is_named(
    repo: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_copy, "_PAUSE_S", 0)
    pour = snapshot_copy._pour

    def pour_and_append(source: int, target: int | None, sha256: object) -> int:
        size = pour(source, target, sha256)
        path = Path(f"/proc/self/fd/{source}").readlink()
        if path.name == "b.py":
            path.write_text(path.read_text() + "more")
        return size

    monkeypatch.setattr(snapshot_copy, "_pour", pour_and_append)
    with pytest.raises(LauncherError, match=r"b\.py changed each time"):
        take_snapshot(plan(repo, directory))
    assert list(directory.parent.iterdir()) == []


def test_copying_beside_an_editor_gives_whole_files(repo: Path, directory: Path) -> None:
    path = repo / "lib/b.py"
    stop = threading.Event()

    def edit() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            new = repo / "lib/b.py~"
            new.write_text(str(number % 10) * 50_000)
            new.replace(path)
            time.sleep(0.001)

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        take_snapshot(plan(repo, directory))
    finally:
        stop.set()
        thread.join()
    assert len(set((directory / "0/lib/b.py").read_text())) == 1


# What is recorded


def test_the_diff_makes_the_tree_out_of_its_commit(repo: Path, directory: Path) -> None:
    (repo / "lib/b.py").write_text("edited\n")
    (repo / "pyproject.toml").write_bytes(bytes(range(256)) * 4)
    (repo / "lib/core/a.py").unlink()
    (repo / "egs/two/asr/run.py").chmod(0o755)
    write_all(repo, {"staged.py": "new\n", "untracked.py": "u"})
    git(repo, "add", "staged.py")
    git(repo, "config", "diff.noprefix", "true")
    git(repo, "config", "color.ui", "always")
    record = take_snapshot(plan(repo, directory))
    assert Path(record["diff"]) == directory.with_name("code.diff")
    assert stat.S_IMODE(Path(record["diff"]).stat().st_mode) == 0o600
    assert b"# untracked: untracked.py\n" in Path(record["diff"]).read_bytes()
    git(repo.parent, "clone", "-q", "repo", "clone")
    clone = repo.parent / "clone"
    git(clone, "apply", record["diff"])
    assert (clone / "pyproject.toml").read_bytes() == (repo / "pyproject.toml").read_bytes()
    write_all(clone, {"untracked.py": "u"})
    other = plan_snapshot("git", [clone], [clone / "egs/one/asr"], directory.with_name("x"))
    assert content_digest(other) == record["digest"]


def test_a_clean_tree_has_no_diff(repo: Path, directory: Path) -> None:
    record = take_snapshot(plan(repo, directory))
    root = record["roots"][0]
    assert record["diff"] is None
    assert (root["dirty"], root["branch"], root["num_changed"]) == (False, "main", 0)
    assert root["commit"] == git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-q", "--detach")
    again = take_snapshot(plan(repo, directory.with_name("again")))
    assert again["roots"][0]["branch"] is None


def test_many_changes_are_counted_and_some_named(repo: Path, directory: Path) -> None:
    write_all(repo, {f"many/{n}.py": "" for n in range(250)})
    commit(repo)
    write_all(repo, {f"many/{n}.py": "x" for n in range(250)})
    root = take_snapshot(plan(repo, directory))["roots"][0]
    assert (root["num_changed"], len(root["changed"])) == (250, 200)


def test_the_digest_depends_on_names_modes_and_contents(repo: Path, directory: Path) -> None:
    def digest() -> str:
        return content_digest(plan(repo, directory))

    first = digest()
    os.utime(repo / "lib/b.py")
    write_all(repo, {"lib/x.ignored": "", "egs/one/asr/exp/results": ""})
    assert digest() == first
    moved = repo.parent / "moved"
    shutil.copytree(repo, moved, symlinks=True)
    assert content_digest(plan(moved, directory)) == first
    digests = {first}
    (repo / "lib/b.py").chmod(0o755)
    digests.add(digest())
    (repo / "lib/b.py").rename(repo / "lib/c.py")
    digests.add(digest())
    (repo / "lib/c.py").write_text("c")
    digests.add(digest())
    (repo / "lib/link").symlink_to("a")
    digests.add(digest())
    (repo / "lib/link").unlink()
    (repo / "lib/link").symlink_to("b")
    digests.add(digest())
    assert len(digests) == 6


@pytest.mark.parametrize("mode", ["git", "copy", "none"])
def test_the_digest_is_the_same_with_and_without_a_copy(
    repo: Path, directory: Path, mode: str
) -> None:
    plan_ = plan(repo, directory, mode=mode)
    with_manifest_only = write_manifest(plan_)
    shutil.rmtree(directory)
    assert take_snapshot(plan_)["digest"] == with_manifest_only["digest"]
    assert content_digest(plan_) == with_manifest_only["digest"]


def test_what_changed_since(repo: Path, recipe: Path, directory: Path) -> None:
    other = repo.parent / "other"
    write_all(other, {"o.py": "o", "p.py": "p"})
    commit(other)
    (repo / "lib/link").symlink_to("b.py")
    plan_ = plan_snapshot("none", [repo, other], [recipe], directory)
    record = write_manifest(plan_)
    assert changed_since(record) == []
    os.utime(repo / "lib/b.py")  # the same content at another time
    write_all(repo, {"lib/new.py": ""})  # what is new was not there to be changed
    assert changed_since(record) == []
    (recipe / "run.py").write_text("edited")
    (recipe / "conf/training.yaml").unlink()
    (recipe / "src/system.py").chmod(0o755)
    (repo / "lib/link").unlink()
    (repo / "lib/link").symlink_to("core")
    (other / "o.py").write_text("O")
    os.utime(other / "o.py", ns=(1, 1))
    expected = [
        "egs/one/asr/conf/training.yaml (deleted)",
        "egs/one/asr/run.py",
        "egs/one/asr/src/system.py",
        "lib/link",
        f"{other}/o.py",
    ]
    assert changed_since(record) == expected
    assert changed_since(record, most=2) == [*expected[:2], "3 more"]
    shutil.rmtree(repo)
    assert len(changed_since(record, most=100)) == len(plan_.entries) - 1


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"roots": [], "entries": [[1]]}'])
def test_a_damaged_manifest_is_told(repo: Path, directory: Path, damage: str | None) -> None:
    record = write_manifest(plan(repo, directory))
    path = Path(record["manifest"])
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(RecordError, match=r"manifest\.json cannot be read"):
        changed_since(record)


@pytest.mark.slow
def test_a_thousand_files_take_as_long_as_copying_them(tmp_path: Path) -> None:
    """A tenth of a second on an idle machine; measured in turn, since not all of them are."""
    repo = tmp_path / "repo"
    write_all(repo, {f"lib/{n % 40}/{n}.py": f"x = {n}\n" * 300 for n in range(1000)})
    write_all(repo, {"egs/one/asr/run.py": "run"})
    commit(repo)
    copying, taking = [], []
    for number in range(3):
        start = time.perf_counter()
        shutil.copytree(repo / "lib", tmp_path / f"copy{number}")
        copying.append(time.perf_counter() - start)
        start = time.perf_counter()
        take_snapshot(plan(repo, tmp_path / f"snapshot{number}"))
        taking.append(time.perf_counter() - start)
    assert min(taking) < 2 * min(copying) + 0.2


# In a real mount namespace


@pytest.fixture
def mount_namespaces() -> None:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        lacks(f"no mount namespaces, which need root: {tried.stderr}")


IN_NAMESPACE = """\
import json, subprocess, sys
from pathlib import Path

mounts, repo = json.loads(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
for source, target in mounts:
    subprocess.run(["mount", "--bind", source, target], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
print("mounted", flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class Namespace:
    """A process that sees the snapshot laid over the tree, and answers what it is asked."""

    def __init__(self, plan_: SnapshotPlan, repo: Path) -> None:
        mounts = json.dumps([(str(mount.source), str(mount.target)) for mount in plan_.mounts])
        command = ["unshare", "-m", sys.executable, "-c", IN_NAMESPACE, mounts, str(repo)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "mounted\n"

    def ask(self, expression: str) -> object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(textwrap.dedent(expression).strip() + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.mark.usefixtures("mount_namespaces")
def test_a_stage_sees_the_code_as_submitted_and_writes_into_the_tree(
    repo: Path, recipe: Path, directory: Path
) -> None:
    write_all(recipe, {"exp/before.txt": "before"})
    plan_ = plan(repo, directory, recipe / "exp/run")
    take_snapshot(plan_)
    (repo / "lib/b.py").write_text("edited while the job was queued")
    write_all(repo, {"lib/added.py": "added while it was queued"})
    (recipe / "run.py").write_text("edited while the job was queued")
    inside = Namespace(plan_, repo)
    try:
        read = "(repo / {!r}).read_text()".format
        assert inside.ask(read("lib/b.py")) == "b"
        assert inside.ask(read("egs/one/asr/run.py")) == "run"
        assert inside.ask("(repo / 'lib/added.py').exists()") is False
        (repo / "lib/core/a.py").write_text("edited while it ran")
        (repo / "lib/core/c.py").write_text("new")
        (repo / "lib/core/c.py").replace(repo / "lib/b.py")
        (recipe / "run.py").write_text("edited once more")
        assert inside.ask(read("lib/core/a.py")) == "a"
        assert inside.ask(read("lib/b.py")) == "b"
        assert inside.ask(read("egs/one/asr/run.py")) == "run"
        assert inside.ask(read("egs/one/asr/exp/before.txt")) == "before"
        for name in ("exp/model.txt", "new results", "exp/../top.log"):
            assert inside.ask(f"(repo / 'egs/one/asr/{name}').write_text('made')") == 4
            assert (recipe / name).read_text() == "made"
        protected = "subprocess.run(['touch', str(repo / {!r})], capture_output=True).returncode"
        for name in ("lib/x.py", "lib/b.py", "egs/one/asr/run.py", "egs/one/asr/conf/x"):
            assert inside.ask(protected.format(name)) != 0
    finally:
        inside.close()
    assert (repo / "lib/core/a.py").read_text() == "edited while it ran"
