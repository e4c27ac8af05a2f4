"""A recipe in the style of upstream's 202611, whose framework is installed and is not ours.

The framework is a stand-in of that shape (``upstream_style/framework``), installed into an
environment of its own. ``tests/upstream`` does the same with the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from launcher.plan import StagePlan, probe_plan
from launcher.recipe import find_recipe, project_root

from .conftest import Launcher

FILES = Path(__file__).parent / "upstream_style"
CONFIGS = ("--training_config", "conf/training.yaml", "--metrics_config", "conf/metrics.yaml")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has the other framework installed."""
    environment = tmp_path_factory.mktemp("environment") / "env"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    paths = {"base": str(environment), "platbase": str(environment)}
    installed = Path(sysconfig.get_path("purelib", "venv", paths))
    shutil.copytree(FILES / "framework", installed, dirs_exist_ok=True)
    # OmegaConf, and whatever else these tests run with: after what is installed in it.
    libraries = sysconfig.get_path("purelib")
    (installed / "libraries.pth").write_text(f"{libraries}\n")
    return python


@pytest.fixture
def recipe(hostile_path: Path) -> Path:
    """Return the recipe in a folder with a hostile name."""
    return Path(shutil.copytree(FILES / "recipe", hostile_path / "counting" / "asr"))


def plan_of(recipe: Path, python: Path, *arguments: str) -> StagePlan:
    found = find_recipe(str(recipe), working_dir=recipe)
    return probe_plan(found, str(python), arguments)


def metadata_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_it_is_planned_with_the_framework_that_is_installed(recipe: Path, python: Path) -> None:
    plan = plan_of(recipe, python, *CONFIGS)
    assert plan.system == "src.system.CountingSystem"
    assert [(stage.name, stage.log_dir) for stage in plan.stages] == [
        ("create_dataset", recipe / "data"),
        ("train", recipe / "exp" / "counting"),
        ("measure", recipe / "exp" / "counting" / "report"),
    ]
    assert plan.exp_dir == recipe / "exp" / "counting"
    assert plan.paths == (Path("/corpora/words"),)
    assert plan.framework is not None
    assert plan.framework.is_relative_to(python.parents[1])


def test_folders_that_planning_makes_are_removed_unless_there_is_something_in_them(
    recipe: Path, python: Path
) -> None:
    before = sorted(path for path in recipe.rglob("*") if "__pycache__" not in path.parts)
    plan_of(recipe, python, *CONFIGS)
    assert sorted(p for p in recipe.rglob("*") if "__pycache__" not in p.parts) == before
    (recipe / "exp").mkdir()
    plan_of(recipe, python, *CONFIGS)
    assert list(recipe.glob("exp/**")) == [recipe / "exp"]
    system = recipe / "src" / "system.py"
    leaves_note = "; Path(training_config.exp_dir, 'note').touch()"
    system.write_text(system.read_text().replace("  # as upstream's does", leaves_note))
    plan_of(recipe, python, *CONFIGS)
    assert (recipe / "exp" / "counting" / "note").exists()


def test_this_project_is_not_in_the_way_of_an_installed_framework(
    recipe: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project_root()), "/some/tools"]))
    found = find_recipe(str(recipe), working_dir=recipe)
    plan = probe_plan(found, str(python), CONFIGS)
    assert plan.framework != project_root()
    theirs = found.environment(framework=plan.framework)["PYTHONPATH"].split(os.pathsep)
    assert str(project_root()) not in theirs
    assert "/some/tools" in theirs
    ours = found.environment(framework=project_root())["PYTHONPATH"].split(os.pathsep)
    assert str(project_root()) in ours


@pytest.mark.parametrize("whose", ["the launcher's", "the other one"])
def test_a_recipe_of_this_project_keeps_its_framework(python: Path, whose: str) -> None:
    interpreter = sys.executable if whose == "the launcher's" else str(python)
    found = find_recipe(str(project_root() / "egs3/mini_an4/asr"), working_dir=project_root())
    arguments = ["--stages", "train", "--training_config", "conf/training.yaml"]
    plan = probe_plan(found, interpreter, arguments)
    assert plan.framework == project_root()
    assert str(project_root()) in found.environment(framework=Path("/elsewhere"))["PYTHONPATH"]


@pytest.fixture
def launch(launcher: Launcher, recipe: Path, python: Path):
    """Return a launch of the recipe with its interpreter, as a function of further arguments."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        options = ["--recipe", str(recipe), "--container", "none", f"container.python={python}"]
        return launcher(*options, *arguments, **variables)

    return run


def test_a_dry_run_shows_its_interpreter_and_no_path_to_this_project(
    launch: Launcher, recipe: Path, python: Path
) -> None:
    shown = launch("--dry-run", "--stages", "train").stdout.replace("\\\n", "")
    assert f"{python} run.py" in " ".join(shown.split())
    assert str(project_root()) + " " not in shown.partition("env")[2].partition("command")[0]
    assert not (recipe / "exp").exists()


def test_its_stages_run_and_the_job_records_how_they_ended(launch: Launcher, recipe: Path) -> None:
    ran = launch("--follow")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    experiment = recipe / "exp" / "counting"
    assert "Counter" in (experiment / "model").read_text()
    metadata = metadata_of(experiment / "train.metadata.json")
    assert (metadata["state"], metadata["stage"], metadata["exit"]["status"]) == (
        "done",
        "train",
        0,
    )
    assert metadata["elapsed_s"] > 0
    assert metadata["job"]["exit_code"] == 0
    assert "most common" in (experiment / "report" / "measure.out").read_text()
    assert "exp/counting/train.log" in ran.stdout

    # Run without the launcher it renames its log alone; the next launch puts that right.
    command = metadata["job"]["command"]
    direct = command[command.index("run.py") - 1 :]
    environment = {**os.environ, **metadata["job"]["environment"]}
    subprocess.run(direct, cwd=recipe, env=environment, check=True, capture_output=True)
    failed = launch("--follow", "--stages", "train", "measure", COUNTING_FAILS="yes")
    assert failed.returncode == 1
    assert "RuntimeError: no words, no model" in failed.stdout
    latest = metadata_of(experiment / "train.metadata.json")
    assert (latest["state"], latest["exit"]["status"]) == ("failed", 1)
    assert metadata_of(experiment / "train1.metadata.json") == metadata
    assert (experiment / "train1.log").stat().st_ino == metadata["job"]["log_inode"]
    assert sorted(path.name for path in experiment.glob("train*")) == [
        *("train.log", "train.metadata.json", "train.out"),
        *("train1.log", "train1.metadata.json", "train1.out"),
        "train2.log",
    ]
    assert not (experiment / "report" / "measure1.out").exists()
