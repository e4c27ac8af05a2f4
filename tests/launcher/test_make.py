"""The front door: what is typed reaches the launcher as typed; the environment is made once."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from launcher.make_run import image_arguments, launcher_arguments, take_variables

REPOSITORY = Path(__file__).resolve().parents[2]
NONE = dict.fromkeys(("CLUSTER", "CONTAINER", "RECIPE", "STAGES", "ARGS"), "")


def test_variables_become_a_command_line() -> None:
    given = {"RECIPE": "a b", "STAGES": "train  infer", "ARGS": "--x 'y z' env.A=\"1 2\""}
    assert launcher_arguments({**NONE, **given}) == [
        *("run", "--follow", "--recipe", "a b", "--stages", "train", "infer"),
        *("--x", "y z", "env.A=1 2"),
    ]
    assert launcher_arguments(NONE) == ["run", "--follow"]
    with pytest.raises(ValueError, match=r"ARGS='x cannot be split into words: No closing"):
        launcher_arguments({**NONE, "ARGS": "'x"})


def test_no_stage_inherits_makes_variables() -> None:
    environment = {"STAGES": " train ", "MAKEFLAGS": "STAGES=train", "MAKELEVEL": "1", "HOME": "/h"}
    assert take_variables(environment) == {**NONE, "STAGES": "train"}
    assert environment == {"HOME": "/h"}


def test_a_mistake_is_answered_with_what_to_type_after_make() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher.make_run"],
        cwd=REPOSITORY,
        env={**os.environ, **NONE, "STAGES": "train,infer"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    said = 'STAGES="train,infer": separate stages with spaces: STAGES="train infer"'
    assert done.stderr == f"launcher: {said}\n"


@pytest.fixture
def front_door(tmp_path: Path) -> Path:
    """Return a copy of the Makefile in a folder with a space; its `.venv` shows its input."""
    folder = tmp_path / "my work $HOME"
    (folder / "requirements").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", folder)
    (folder / "requirements" / "make_env.py").touch()
    (folder / "launcher").mkdir()
    for name in ("__init__.py", "errors.py", "make_run.py"):
        shutil.copy(REPOSITORY / "launcher" / name, folder / "launcher")
    python = folder / ".venv" / "bin" / "python"
    script = (
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.environ['STAGES'], os.environ['ARGS']]))\n"
    )
    python.write_text(f"#!{sys.executable}\n{script}")
    python.chmod(0o755)
    return folder


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**{name: os.environ[name] for name in ("PATH", "HOME")}, **variables}
    command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "typed",
    [
        "train infer",
        'it\'s "quoted"; touch hacked',
        "$(shell touch hacked) `touch hacked` $$HOME $(HOME)",
        "a\\ b * # % é",
    ],
)
def test_what_is_typed_arrives_as_typed(front_door: Path, typed: str) -> None:
    done = make(front_door, "run", f"STAGES={typed}", f"ARGS={typed}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["-m", "launcher.make_run"], typed, typed]
    assert not (front_door / "hacked").exists()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("RECIP=egs3/fsdd/asr", "RECIPE"), ("stages=train 'infer' $(x)", "STAGES"), ("arg=", "ARGS")],
)
@pytest.mark.parametrize("target", ["run", "test", "lint", "clean"])
def test_a_slip_in_the_name_of_a_variable_is_told(
    front_door: Path, typed: str, meant: str, target: str
) -> None:
    done = make(front_door, target, typed)
    assert done.returncode != 0
    name = typed.partition("=")[0]
    assert f"make: there is no variable {name}. Did you mean '{meant}'?" in done.stderr
    assert done.stdout == ""


def test_variables_of_the_environment_are_nobodys_slip(front_door: Path) -> None:
    done = make(front_door, "run", RECIP="egs3/fsdd/asr", stages="train")
    assert done.returncode == 0, done.stderr
    below = make(front_door, "run", MAKELEVEL="1", MAKEFLAGS=" -- DESTDIR=/usr")
    assert below.returncode == 0, below.stderr


def test_the_example_of_the_help_is_accepted(front_door: Path) -> None:
    text = make(front_door).stdout
    recipe = re.search(r"RECIPE=(\S+)", text)
    arguments = re.search(r'ARGS="([^"]+)"', text)
    assert recipe is not None
    assert arguments is not None
    words = launcher_arguments({**NONE, "RECIPE": recipe[1], "ARGS": arguments[1]})
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *words, "--dry-run"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "inference_config" in done.stdout


def test_make_alone_is_help(front_door: Path) -> None:
    done = make(front_door)
    assert done.returncode == 0
    targets = re.findall(r"^make (\S+)", done.stdout, re.MULTILINE)
    assert targets == [
        *("run", "test", "faults", "targets", "test-upstream", "image", "cluster-up"),
        *("cluster-down", "bench", "docs", "lint", "format", "env", "lock", "clean"),
    ]


def test_upstreams_environment_gets_its_variables(front_door: Path) -> None:
    script = front_door / "tests" / "upstream" / "environment.py"
    script.parent.mkdir(parents=True)
    names = ("PYTHON312", "UPSTREAM_ENV")
    script.write_text(
        f"import json, os\nprint(json.dumps([os.environ.get(name) for name in {names}]))\n"
    )
    named = make(front_door, "upstream-env", "PYTHON312=/a b/$(x)")
    assert json.loads(named.stdout.splitlines()[-1]) == ["/a b/$(x)", None]
    exported = make(front_door, "upstream-env", UPSTREAM_ENV="/c")
    assert json.loads(exported.stdout.splitlines()[-1]) == [None, "/c"]


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ([], {}, ["cpu", ""]),
        (["NAME=gpu", "BASE=a/b@sha256:0"], {}, ["gpu", "a/b@sha256:0"]),
        (["NAME=$(shell touch hacked)"], {}, ["$(shell touch hacked)", ""]),
        ([], {"NAME": "DESKTOP-1", "BASE": "x"}, ["cpu", ""]),
    ],
)
def test_an_image_gets_its_variables(
    front_door: Path, given: list[str], environment: dict[str, str], expected: list[str]
) -> None:
    python = front_door / ".venv" / "bin" / "python"
    names = ("IMAGE_NAME", "IMAGE_BASE")
    shown = f"import json, os\nprint(json.dumps([os.environ[name] for name in {names}]))\n"
    python.write_text(f"#!{sys.executable}\n{shown}")
    done = make(front_door, "image", *given, **environment)
    assert json.loads(done.stdout) == expected, done.stderr
    assert not (front_door / "hacked").exists()


def test_an_image_becomes_a_command_line() -> None:
    given = {**NONE, "ARGS": "--engine podman"}
    assert image_arguments(given, "gpu", "a b") == [
        *("image", "build", "gpu", "--base", "a b", "--engine", "podman")
    ]
    assert image_arguments(NONE, "cpu", "") == ["image", "build", "cpu"]


def test_the_rehearsal_cluster_gets_its_variables(front_door: Path) -> None:
    scripts = front_door / "tests" / "cluster" / "rehearsal"
    scripts.mkdir(parents=True)
    names = ("ACCOUNTING", "PURGE", "REHEARSAL_DIR")
    shown = f"import json, os\nprint(json.dumps([os.environ.get(name) for name in {names}]))\n"
    for name in ("up.py", "down.py"):
        (scripts / name).write_text(shown)
    up = make(front_door, "cluster-up", "ACCOUNTING=yes", "REHEARSAL_DIR=/a b/$(x)")
    assert json.loads(up.stdout) == ["yes", "", "/a b/$(x)"]
    down = make(front_door, "cluster-down", "PURGE=yes")
    assert json.loads(down.stdout) == ["", "yes", None]
    exported = make(front_door, "cluster-down", REHEARSAL_DIR="/c")
    assert json.loads(exported.stdout) == ["", "", "/c"]


@pytest.fixture
def make_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return requirements/make_env.py as a module that works on a folder of the test's."""
    path = REPOSITORY / "requirements" / "make_env.py"
    spec = importlib.util.spec_from_file_location("make_env", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a project"
    (root / "requirements").mkdir(parents=True)
    for name in [*module.INPUTS["run"], *module.INPUTS["dev"]]:
        (root / name).write_text("1")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(module, "PYTHON", root / ".venv" / "bin" / "python")
    monkeypatch.chdir(root)
    installed: list[str] = []

    def create() -> None:
        module.PYTHON.parent.mkdir(parents=True)
        module.PYTHON.symlink_to(sys.executable)
        (root / ".venv/lib/python3.11/site-packages").mkdir(parents=True)

    def install(target: str) -> None:
        installed.append(target)
        (root / f".venv/lib/python3.11/site-packages/{target}-1.dist-info").mkdir()
        stamp = {"key": module.key(target), "packages": module.packages()}
        module.stamp_path(target).write_text(json.dumps(stamp))

    monkeypatch.setattr(module, "create", create)
    monkeypatch.setattr(module, "install", install)
    module.installed = installed
    return module


def test_the_environment_is_made_once_and_extended(make_env: ModuleType) -> None:
    for target in ("run", "run", "dev", "dev", "run"):
        make_env.main(target)
    assert make_env.installed == ["run", "dev"]


@pytest.mark.parametrize("damage", ["lock", "package", "stamp", "python", "moved"])
def test_an_environment_that_is_not_whole_is_made_again(
    make_env: ModuleType, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_env.main("run")
    if damage == "lock":
        Path("requirements/run.lock").write_text("2")
    elif damage == "package":
        shutil.rmtree(next(make_env.VENV.glob("lib/*/*/*.dist-info")))
    elif damage == "stamp":
        make_env.stamp_path("run").write_text('{"key"')
    elif damage == "python":
        make_env.PYTHON.unlink()
    else:
        moved = make_env.ROOT.rename(make_env.ROOT.parent / "moved")
        for name, path in {"ROOT": "", "VENV": ".venv", "PYTHON": ".venv/bin/python"}.items():
            monkeypatch.setattr(make_env, name, moved / path)
    make_env.main("run")
    assert make_env.installed == ["run", "run"]


def test_python_without_ensurepip_is_told_what_to_install(
    make_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real create()
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"lacks its module ensurepip.*apt-get install python3"):
        make_env.create()


def test_an_old_python_is_told_so(make_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_env, "OLDEST_PYTHON", (4, 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.10 or newer; .*PYTHON=python3\.12"):
        make_env.main("run")


def test_clean_keeps_what_recipes_and_launches_wrote(make_env: ModuleType) -> None:
    make_env.main("run")
    for name in ("egs3/a/exp", ".launches/one", "egs3/a/src/__pycache__", "x.egg-info"):
        Path(name).mkdir(parents=True)
    make_env.main("clean")
    assert sorted(str(path) for path in Path().glob("**/")) == [
        *(".", ".launches", ".launches/one", "egs3", "egs3/a", "egs3/a/exp", "egs3/a/src"),
        "requirements",
    ]


@pytest.mark.parametrize("lock", ["run", "dev"])
def test_locks_hold_every_package_by_hash_and_name_no_registry(lock: str) -> None:
    text = (REPOSITORY / "requirements" / f"{lock}.lock").read_text()
    assert "://" not in text
    assert "index" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    names = {entry.split("==")[0] for entry in entries}
    asked = (REPOSITORY / "requirements" / f"{lock}.in").read_text()
    wanted = {name for name in re.findall(r"^([a-z0-9-]+)", asked, re.MULTILINE) if name[0] != "-"}
    assert wanted <= names
    assert not names & {"torch", "triton"}
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]
