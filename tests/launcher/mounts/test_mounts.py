"""What a stage sees of the host, and what it never sees."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher import mounts as mounts_module
from launcher.containers.base import Mount
from launcher.errors import ConfigError
from launcher.mounts import StageMounts, in_order, stage_mounts
from launcher.mounts.links import find_links
from launcher.mounts.texts import paths_in, texts_in
from tests.conftest import lacks


@pytest.fixture
def host(hostile_path: Path) -> Path:
    """Return a folder that stands for the host; the code is in its ``code``."""
    write_all(hostile_path, {"code/recipe/run.py": "run", "code/lib.py": "lib"})
    return hostile_path


def write_all(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def link(path: Path, text: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(text)


def find(host: Path, **arguments: Any) -> StageMounts:
    defaults = {"code_roots": [host / "code"], "working_dir": host / "code/recipe"}
    return stage_mounts(**{**defaults, "home": host / "home", **arguments})


def modes(found: StageMounts, host: Path) -> dict[str, str]:
    """Return what is mounted, relative to the host's folder, and how; all at its own path."""
    assert all(mount.source == mount.target for mount in found.mounts)
    return {
        os.path.relpath(mount.target, host): "ro" if mount.read_only else "rw"
        for mount in found.mounts
    }


# Roots, results, settings


def test_the_code_is_mounted_at_its_own_path(host: Path) -> None:
    write_all(host, {"launcher/pyproject.toml": ""})
    found = find(host, read_only_roots=[host / "launcher"])
    assert modes(found, host) == {"code": "rw", "launcher": "ro"}
    assert (found.folders, found.notices) == ((), ())


@pytest.mark.parametrize("root", ["/", "/usr", "/etc"])
def test_code_in_place_of_the_image_is_refused(host: Path, root: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be seen in a container.*--container none"):
        find(host, code_roots=[Path(root)])


def test_results_outside_the_tree_are_mounted_and_made_first(host: Path) -> None:
    (host / "there").mkdir()
    outputs = [host / "code/recipe/exp", host / "there", host / "not/yet", host / "not/yet/stats"]
    found = find(host, outputs=outputs)
    assert modes(found, host) == {"code": "rw", "there": "rw", "not/yet": "rw"}
    assert found.folders == (host / "not/yet",)
    assert not (host / "not").exists()


def test_results_behind_a_link_are_mounted_where_it_leads(host: Path) -> None:
    link(host / "code/recipe/exp", host / "scratch/exp")
    found = find(host, outputs=[host / "code/recipe/exp/one"])
    assert modes(found, host) == {"code": "rw", "scratch/exp/one": "rw"}
    assert found.folders == (host / "scratch/exp/one",)
    (host / "scratch/exp").mkdir(parents=True)
    found = find(host, outputs=[host / "code/recipe/exp/one"])
    assert modes(found, host)["scratch/exp"] == "rw"


def test_results_inside_a_read_only_tree_are_writable(host: Path) -> None:
    write_all(host, {"launcher/egs/run.py": ""})
    found = find(host, read_only_roots=[host / "launcher"], outputs=[host / "launcher/egs/exp"])
    assert modes(found, host) == {"code": "rw", "launcher": "ro", "launcher/egs/exp": "rw"}
    assert found.folders == (host / "launcher/egs/exp",)


def test_mounts_that_change_nothing_are_left_out(host: Path) -> None:
    write_all(host, {"code/sub/x": "", "code/sub/deep/y": "", "data/a": "", "other/x": ""})
    found = find(
        host,
        read_only_roots=[host / "code/sub"],
        mounts=[str(host / "code"), str(host / "code/recipe"), str(host / "code/sub/deep")],
        mounts_read_only=[str(host / "data/a"), str(host / "data"), str(host / "code/sub/x")],
    )
    assert modes(found, host) == {
        **{"code": "rw", "code/sub": "ro", "code/sub/deep": "rw", "data": "ro"},
    }


def test_settings_may_be_relative_to_the_recipe_or_to_home(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(host / "home"))
    write_all(host, {"home/corpus/a": "", "near/b": ""})
    found = find(host, mounts=["~/corpus"], mounts_read_only=["../../near"])
    assert modes(found, host) == {"code": "rw", "home/corpus": "rw", "near": "ro"}


@pytest.mark.parametrize("setting", ["mounts", "mounts_read_only"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "take the place of the image"),
        ("/usr/share", "/usr is the image's own"),
        ("/etc", "/etc is the image's own"),
        ("/proc/self", "/proc is the image's own"),
        ("/dev/null", "/dev is the image's own"),
        ("/tmp", "stages have a /tmp of their own"),
        ("/opt", "images have software in /opt"),
        ("/nowhere/at/all", r"does not exist on this machine.*mounts"),
        ("/tmp:/data", r"does not exist.*same path inside.*without ':'"),
    ],
)
def test_what_cannot_be_mounted_is_refused(
    host: Path, setting: str, path: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}: .*{reason}"):
        find(host, **{setting: [path]})


def test_contradictions_are_refused(host: Path) -> None:
    (host / "data").mkdir()
    data = str(host / "data")
    with pytest.raises(ConfigError, match="in mounts and in mounts_read_only"):
        find(host, mounts=[data], mounts_read_only=[data])
    for place in (host / "code", host / "out"):
        place.mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="stages write there"):
            find(host, outputs=[host / "out"], mounts_read_only=[str(place)])


# Paths in arguments, configs and variables


def test_paths_that_settings_name_are_mounted(host: Path) -> None:
    write_all(host, {"corpus/wav/a.wav": "", "models/large.pt": "", "lists/x.txt": "", "b/c": ""})
    candidates = [
        f"--model={host}/models/large.pt",
        f"--list={host}/lists/../lists/x.txt",
        f"{host}/corpus/wav",
        f"{host}/code/recipe/conf",
        f"file://{host}/b/",
        "../../lists",
    ]
    assert modes(find(host, candidates=candidates), host) == {
        **{"code": "rw", "corpus/wav": "rw", "models/large.pt": "ro", "b": "rw", "lists": "rw"},
    }


def test_lists_of_paths_are_taken_apart(tmp_path: Path) -> None:
    for name in ("a", "b", "c:d"):
        (tmp_path / name).mkdir()
    one, two, odd = (tmp_path / name for name in ("a", "b", "c:d"))
    found = list(paths_in(f"[{one},{two}]", tmp_path))
    assert [path for path in found if Path(path).exists()] == [str(one), str(two)]
    assert str(two) in list(paths_in(f"{one}:{two}", tmp_path))
    assert list(paths_in(str(odd), tmp_path)) == [str(odd)]
    assert str(odd) not in paths_in(f"{one}:{odd}", tmp_path)
    assert list(paths_in("../x", tmp_path / "y")) == [str(tmp_path / "x")]


@pytest.mark.parametrize(
    "text", ["", "train", "http://host/usr", "a/b", "\0", "x" * 9999, "3:4", "=", "//", "~nobody\0"]
)
def test_texts_that_are_no_paths(host: Path, text: str) -> None:
    found = find(host, candidates=[text])
    assert modes(found, host) == {"code": "rw"}
    assert found.notices == ()


def test_texts_of_a_nested_config() -> None:
    config = {"a": ["x", {"b": Path("/p"), "c": 3, "d": None}], "key": ("y", True, 1.5)}
    assert list(texts_in(config)) == ["x", "/p", "y"]


@pytest.mark.parametrize(
    "path", ["/", "/usr/bin", "/etc/hosts", "/dev/null", "/tmp", "/proc/1", "/bin/sh", "/home"]
)
def test_what_belongs_to_the_image_is_passed_over_in_silence(host: Path, path: str) -> None:
    found = find(host, candidates=[path, f"--x={path}", f"{path}:{path}"])
    assert modes(found, host) == {"code": "rw"}
    assert found.notices == ()


def test_a_home_is_mounted_only_when_asked_for(host: Path) -> None:
    (host / "home").mkdir()
    home = str(host / "home")
    assert modes(find(host, candidates=[home, str(host)]), host) == {"code": "rw"}
    assert modes(find(host, mounts=[home]), host) == {"code": "rw", "home": "rw"}


def test_sockets_and_pipes_are_passed_over(host: Path) -> None:
    os.mkfifo(host / "pipe")
    assert modes(find(host, candidates=[str(host / "pipe")]), host) == {"code": "rw"}


def test_results_that_would_be_lost_are_told(host: Path) -> None:
    found = find(host, candidates=[f"data_dir={host}/new data"])
    assert "is lost with its container" in found.notices[0]
    inside = find(host, candidates=[f"{host}/code/recipe/new", f"{host}/no/parent/either"])
    assert inside.notices == ()
    known = find(host, candidates=[f"{host}/exp"], outputs=[host / "exp"])
    assert known.notices == ()


def test_a_path_through_a_link_is_there_under_both_names(host: Path) -> None:
    """Manifests in the data hold resolved names, configs those that people type."""
    write_all(host, {"disks/1/corpus/a.wav": "a"})
    link(host / "data", "disks/1")
    found = find(host, candidates=[f"{host}/data/corpus"])
    assert modes(found, host) == {"code": "rw", "data/corpus": "rw", "disks/1/corpus": "rw"}


def test_a_read_only_setting_holds_for_what_is_found_inside(host: Path) -> None:
    write_all(host, {"corpora/one/a": ""})
    found = find(host, mounts_read_only=[f"{host}/corpora"], candidates=[f"{host}/corpora/one"])
    assert modes(found, host) == {"code": "rw", "corpora": "ro"}


# Links


def test_links_out_of_the_tree_are_followed(host: Path) -> None:
    write_all(host, {"big/data/a.wav": "", "models/m.pt": "", "second/x": ""})
    link(host / "code/recipe/data", host / "big/data")
    link(host / "code/recipe/model.pt", "../../models/m.pt")
    link(host / "big/data/more", "../../second")
    link(host / "code/recipe/inside", "../lib.py")
    link(host / "code/recipe/dangling", host / "nowhere")
    link(host / "code/recipe/sh", "/bin/sh")
    link(host / "code/recipe/itself", "itself")
    link(host / "code/recipe/root", "/")
    assert modes(find(host), host) == {
        **{"code": "rw", "big/data": "rw", "models/m.pt": "ro", "second": "rw"},
    }


def test_a_chain_of_links(host: Path) -> None:
    write_all(host, {"c/target/x": "x"})
    link(host / "code/recipe/data", host / "a/first")
    link(host / "a/first", host / "b/second")
    link(host / "b/second", "../c/target")
    found = find(host)
    assert modes(found, host) == {"code": "rw", "a/first": "rw"}
    assert (host / "a/first/x").read_text() == "x"


def test_a_chain_through_a_mounted_folder(host: Path) -> None:
    write_all(host, {"c/target/x": "x"})
    link(host / "code/recipe/data", host / "a/first")
    link(host / "a/first", host / "c/target")
    found = find(host, mounts=[str(host / "a")])
    assert modes(found, host) == {"code": "rw", "a": "rw", "c/target": "rw"}


def test_a_relative_link_in_a_folder_that_is_reached_by_a_link(host: Path) -> None:
    """``..`` leads to another place inside, where the folder lies under the name of the link."""
    write_all(host, {"deep/down/data/x": "", "deep/down/side/s": "s"})
    link(host / "code/recipe/data", host / "short")
    link(host / "short", "deep/down/data")
    link(host / "deep/down/data/side", "../side")
    found = find(host)
    pairs = {(mount.source, mount.target) for mount in found.mounts}
    assert (host / "deep/down/side", host / "side") in pairs


def test_folders_with_software_are_not_looked_into(host: Path) -> None:
    write_all(host, {"far/x": ""})
    for name in (".git", ".venv", ".launches", "__pycache__", "node_modules"):
        link(host / "code" / name / "out", host / "far")
    write_all(host, {"code/runs/1/launch.json": "{}", "code/runs/1/events/a": ""})
    link(host / "code/runs/1/code/out", host / "far")
    assert modes(find(host), host) == {"code": "rw"}


def test_many_links_into_one_folder_take_one_mount(host: Path) -> None:
    write_all(host, {f"corpus/wav/{n}.wav": "" for n in range(20)})
    for n in range(20):
        link(host / f"code/recipe/data/{n}.wav", host / f"corpus/wav/{n}.wav")
    assert modes(find(host), host) == {"code": "rw", "corpus/wav": "ro"}


def test_a_folder_that_a_setting_names_stays_writable_among_files_that_links_lead_to(
    host: Path,
) -> None:
    write_all(host, {f"corpus/{n}.wav": "" for n in range(20)} | {"corpus/out/x": ""})
    for n in range(20):
        link(host / f"code/recipe/data/{n}.wav", host / f"corpus/{n}.wav")
    found = find(host, candidates=[f"{host}/corpus/out"])
    assert modes(found, host) == {"code": "rw", "corpus": "ro", "corpus/out": "rw"}


def test_links_into_many_folders_take_their_common_one(host: Path) -> None:
    write_all(host, {f"corpus/wav/s{n}/{m}.wav": "" for n in range(70) for m in range(2)})
    for n in range(70):
        for m in range(2):
            link(host / f"code/recipe/data/{n}.{m}.wav", host / f"corpus/wav/s{n}/{m}.wav")
    assert modes(find(host), host) == {"code": "rw", "corpus/wav": "ro"}


def test_a_tree_too_large_to_be_looked_at_is_told(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(host, {"big/data/a": ""})
    link(host / "code/recipe/data", host / "big/data")
    write_all(host, {f"code/recipe/exp/{n}/{m}": "" for n in range(10) for m in range(10)})
    link(host / "code/recipe/exp/0/deep/link", host / "home")
    monkeypatch.setattr(mounts_module, "MAX_ENTRIES", 30)
    found = find(host)
    assert modes(found, host) == {"code": "rw", "big/data": "rw"}
    assert "mounts=[PATH]" in found.notices[0]
    links, is_all = find_links(str(host / "code"), max_entries=10**6)
    assert (sorted(links), is_all) == (["recipe/data", "recipe/exp/0/deep/link"], True)


def test_links_in_circles_end(host: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        write_all(host, {f"{name}/x": ""})
        link(host / name / "next", host / other)
        link(host / name / "up", "..")
    link(host / "code/recipe/a", host / "a")
    found = find(host, home=host / "x")
    assert len(found.mounts) <= 4


def test_a_worktree_has_its_repository(host: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    main = host / "main"
    main.mkdir()
    commands = (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"])
    for command in (*commands, ["worktree", "add", "-q", str(host / "tree")]):
        subprocess.run([*git, *command], cwd=main, check=True)
    found = find(host, code_roots=[host / "tree"], working_dir=host / "tree")
    assert modes(found, host) == {"tree": "rw", "main/.git": "ro"}


# Order


def test_parents_stand_before_children_the_snapshot_included(host: Path) -> None:
    write_all(host, {"code/lib/a.py": "", "code/lib/cache/x": "", "launches/1/code/0/lib/a.py": ""})
    snapshot = [
        Mount(host / "launches/1/code/0/lib", host / "code/lib", read_only=True),
        Mount(host / "launches/1/code/0/run.py", host / "code/recipe/run.py", read_only=True),
    ]
    launch = [Mount(host / "launches/1", host / "launches/1")]
    found = find(
        host, snapshot=snapshot, launch=launch, mounts_read_only=[str(host / "code/lib/cache")]
    )
    order = [os.path.relpath(mount.target, host) for mount in found.mounts]
    assert order == ["code", "code/lib", "code/lib/cache", "code/recipe/run.py", "launches/1"]
    whole = [Mount(host / "launches/1/code/0", host / "code", read_only=True)]
    assert find(host, snapshot=whole).mounts == tuple(whole)


def test_what_is_added_later_goes_before_what_lies_below_it() -> None:
    data, scratch = Mount(Path("/tmp/data"), Path("/tmp/data")), Mount(Path("/x"), Path("/tmp"))
    assert in_order([data, scratch]) == (scratch, data)


# In a real mount namespace


@pytest.fixture
def mount_namespaces() -> None:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        lacks(f"no mount namespaces, which need root: {tried.stderr}")


IN_NAMESPACE = """\
import json, os, subprocess, sys
from pathlib import Path

root, mounts, asked = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
for source, target, read_only in mounts:
    inside = Path(str(root) + target)
    if Path(source).is_dir():
        inside.mkdir(parents=True, exist_ok=True)
    elif not inside.exists():
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
    subprocess.run(["mount", "--bind", source, inside], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", inside], check=True)
os.chroot(root)
os.chdir("/")
print(json.dumps([Path(path).read_text() if os.path.exists(path) else None for path in asked]))
"""


@pytest.mark.usefixtures("mount_namespaces")
@pytest.mark.parametrize("seed", range(10))
def test_what_can_be_read_outside_can_be_read_inside(seed: int, host: Path, tmp_path: Path) -> None:
    """Random links, relative and absolute, through folders, files and other links."""
    chance = random.Random(seed)
    folders = ["code", "code/recipe", "far", "far/away", "mid", "mid/a/b", "mid/c"]
    write_all(host, {f"{folder}/f{n}": f"{folder}{n}" for folder in folders for n in range(2)})
    names = [*folders, *(f"{folder}/f0" for folder in folders)]
    for n in range(14):
        place, target = chance.choice(folders), chance.choice(names)
        text = str(host / target)
        if chance.random() < 0.5:
            text = os.path.relpath(text, os.path.realpath(host / place))
        link(host / place / f"l{n}", text)
        names.append(f"{place}/l{n}")
    found = find(host, home=Path("/nonexistent"), mounts=[str(host / chance.choice(folders))])
    asked = []
    for base, _, _ in os.walk(host / "code"):
        for name in os.listdir(base):  # noqa: PTH208
            for below in ("", "/f0", "/f1", "/l3", "/l3/f0", "/l5", "/l1/l2/f0"):
                path = Path(f"{base}/{name}{below}")
                if path.is_file():
                    asked.append(str(path))
    mounts = [(str(each.source), str(each.target), each.read_only) for each in found.mounts]
    root = tmp_path / "root"
    root.mkdir()
    command = ["unshare", "-m", sys.executable, "-c", IN_NAMESPACE, str(root)]
    done = subprocess.run(
        [*command, json.dumps(mounts), json.dumps(asked)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seen = dict(zip(asked, json.loads(done.stdout), strict=True))
    assert asked
    assert {path: text for path, text in seen.items() if text != Path(path).read_text()} == {}
