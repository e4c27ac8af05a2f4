"""The probe: recipes of every style are planned, nothing of them is run or created."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from launcher import probe
from launcher.errors import LauncherError, RecipeRefused
from launcher.plan import StagePlan, probe_plan
from launcher.recipe import Recipe, find_recipe


def plan_of(recipe_dir: Path, *arguments: str) -> StagePlan:
    recipe = find_recipe(str(recipe_dir), working_dir=recipe_dir)
    return probe_plan(recipe, sys.executable, arguments)


def test_plan_of_a_recipe_with_a_lambda_and_a_flag_of_its_own(recipe_dir: Path) -> None:
    (recipe_dir / "conf" / "labels.yaml").touch()
    plan = plan_of(
        recipe_dir,
        *("--stages", "score", "prepare"),
        *("--training_config", "conf/training.yaml", "--labels_config", "conf/labels.yaml"),
    )
    assert [stage.name for stage in plan.stages] == ["prepare", "score"]
    assert plan.system == "src.tiny_system.TinySystem"
    assert plan.exp_dir == recipe_dir / "exp" / "tiny"
    assert plan.stages[0].log_dir == recipe_dir / "exp" / "tiny"
    assert plan.stages[0].configs == {
        "training_config": recipe_dir / "conf" / "training.yaml",
        "labels_config": recipe_dir / "conf" / "labels.yaml",
    }
    assert plan.stages[0].roles is None  # a method of the recipe's own may read any config
    assert plan.resolved["training_config"]["exp_dir"] == str(recipe_dir / "exp" / "tiny")
    assert StagePlan.from_record(json.loads(json.dumps(plan.to_record()))) == plan
    assert not (recipe_dir / "exp").exists()


def test_plan_names_the_absolute_paths_of_every_config(recipe_dir: Path) -> None:
    training = recipe_dir / "conf" / "training.yaml"
    training.write_text(
        training.read_text()
        + "dataset: {train: [{path: /corpora/b}, {path: /corpora/a/}, {path: relative/c}]}\n"
        + "cache: /corpora/b\n"
    )
    system = recipe_dir / "src" / "tiny_system.py"
    own = "self.labels_config = {'lexicon': ['/corpora/lexicon.txt', 3, None]}"
    system.write_text(system.read_text().replace("self.labels_config = labels_config", own))
    plan = plan_of(recipe_dir, "--stages", "fit", "--training_config", str(training))
    inside = {path for path in plan.paths if recipe_dir in (path, *path.parents)}
    assert {recipe_dir / "data", recipe_dir / "exp" / "tiny"} <= inside
    others = [path for path in plan.paths if path not in inside]
    assert others == [Path(f"/corpora/{name}") for name in ("a", "b", "lexicon.txt")]
    assert StagePlan.from_record(json.loads(json.dumps(plan.to_record()))) == plan


def test_a_secret_of_a_config_is_masked_before_the_plan_is_written(
    recipe_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = recipe_dir / "conf" / "training.yaml"
    training.write_text(training.read_text() + "hub: {token: '${oc.env:MY_HUB}', lr: 1}\n")
    monkeypatch.setenv("MY_HUB", "hf_abcdefgh")
    written = []
    monkeypatch.setattr(
        StagePlan, "from_record", classmethod(lambda _, record: written.append(record))
    )
    with suppress(AttributeError):  # there is no plan
        plan_of(recipe_dir, "--stages", "fit", "--training_config", str(training))
    assert written[0]["resolved"]["training_config"]["hub.token"] == "***"
    assert written[0]["resolved"]["training_config"]["hub.lr"] == 1
    assert "hf_abcdefgh" not in json.dumps(written)


class Configured:
    """A system with configs of every kind; ``broken_config`` cannot even be asked for."""

    def __init__(self) -> None:
        self.training_config = OmegaConf.create(
            {
                "base": "/data/base",
                "joined": "${.base}/train",
                "nowhere": "${not_there}/x",
                "missing": "???",
                "failing": "${oc.env:NOT_SET_ANYWHERE}",
                "none": None,
                "null_mapping": DictConfig(None),
                "list": ["${..base}", "${nothing}", "/data/list", {"deep": [["/data/deep"]]}],
                "path": Path("/data/path/"),
            }
        )
        self.plain_config = {"file": "/data/plain", "text": "/not\na path", "b": b"/bytes"}
        self.plain_config["self"] = self.plain_config
        self.missing_config = None
        self.not_a_configuration = {"file": "/data/not"}

    @property
    def broken_config(self) -> None:
        raise RuntimeError("needs the network")


def test_paths_are_of_configs_of_every_kind_and_only_what_resolves() -> None:
    names = ("base", "base/train", "deep", "list", "path", "plain")
    assert probe.config_paths(Configured()) == sorted(f"/data/{name}" for name in names)


def test_a_plan_without_paths_has_none() -> None:
    record = {"schema": 1, "recipe_dir": "/r", "system": "S", "exp_dir": None, "stages": []}
    assert StagePlan.from_record(record).paths == ()


def write_framework(folder: Path, *, stages_utils: str, **modules: str) -> None:
    """Write an ``espnet3`` of its own beside a recipe, which shadows the installed one."""
    for name, content in {"utils/stages_utils": stages_utils, **modules}.items():
        path = folder / "espnet3" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in (path.parent, folder / "espnet3"):
            (parent / "__init__.py").touch()
        path.write_text(content)


RUNS = "def run_stages(system, stages_to_run, args=None, log=None):\n    raise SystemExit(9)\n"


def test_the_function_is_replaced_however_early_it_is_bound(tmp_path: Path) -> None:
    write_framework(
        tmp_path,
        stages_utils=RUNS,
        **{"early": "from espnet3.utils.stages_utils import run_stages as bound\n"},
    )
    # The package itself binds it before the recipe can do anything.
    (tmp_path / "espnet3" / "__init__.py").write_text("from espnet3 import early\n")
    (tmp_path / "run.py").write_text(
        "from espnet3.early import bound\n"
        "class System:\n"
        "    stage_log_dirs = {'default': 'logs'}\n"
        "    def go(self): raise SystemExit(8)\n"
        "bound(System(), ['go'])\n"
    )
    plan = plan_of(tmp_path)
    assert [stage.log_dir for stage in plan.stages] == [tmp_path / "logs"]
    assert plan.exp_dir is None


def test_plan_of_a_recipe_in_upstreams_newest_style(tmp_path: Path) -> None:
    """Stages are a class attribute, ``launch`` replaces ``main``, log folders are a function."""
    write_framework(
        tmp_path,
        stages_utils=RUNS,
        **{
            "contract/stages": (
                "from collections import namedtuple\n"
                "StageSpec = namedtuple('StageSpec', 'name config log_dir')\n"
                "def stage_log_dir(system, name):\n"
                "    return next(s.log_dir for s in system.stages if s.name == name)\n"
            ),
            "systems/launch": (
                "from espnet3.utils import stages_utils\n"
                "def launch(system_cls):\n"
                "    system = system_cls()\n"
                "    names = [stage.name for stage in system.stages]\n"
                "    stages_utils.run_stages(system=system, stages_to_run=names, args=None,"
                " log=None)\n"
            ),
        },
    )
    (tmp_path / "run.py").write_text(
        "from espnet3.contract.stages import StageSpec\n"
        "from espnet3.systems.launch import launch\n"
        "class System:\n"
        "    exp_dir = 'exp/new'\n"
        "    stages = (StageSpec('train', 'training', 'exp/new'), "
        "StageSpec('infer', 'inference', 'exp/new/infer'))\n"
        "    def train(self): ...\n"
        "    def infer(self): ...\n"
        "if __name__ == '__main__':\n"
        "    launch(System)\n"
    )
    plan = plan_of(tmp_path)
    assert [(stage.name, stage.log_dir) for stage in plan.stages] == [
        ("train", tmp_path / "exp/new"),
        ("infer", tmp_path / "exp/new/infer"),
    ]
    assert plan.exp_dir == tmp_path / "exp/new"
    assert plan.stages[0].roles == ("training_config",)
    assert plan.stages[1].roles == ("inference_config", "training_config")


def test_a_stage_without_a_method_is_refused_before_anything_is_submitted(recipe_dir: Path) -> None:
    run_py = recipe_dir / "run.py"
    run_py.write_text(run_py.read_text().replace('"score"]', '"score", "upload"]'))
    with pytest.raises(RecipeRefused, match="TinySystem has no stage method: upload") as refused:
        plan_of(recipe_dir, "--stages", "all", "--training_config", "conf/training.yaml")
    assert refused.value.exit_status == 1


def test_of_a_traceback_the_message_is_shown_and_how_to_see_the_rest(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("raise ValueError('Config not provided:\\n  train')\n")
    with pytest.raises(RecipeRefused) as refused:
        plan_of(tmp_path, "--stages", "a b")
    message = str(refused.value)
    assert "ValueError: Config not provided:\n  train\n(the traceback: cd " in message
    assert "python run.py --stages 'a b'" in message
    assert "Traceback (most" not in message


def test_a_recipe_that_runs_no_stages_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("print('usage: whatever')\n")
    with pytest.raises(RecipeRefused, match=r"without running any stage(.|\n)*usage: whatever"):
        plan_of(tmp_path)


def test_a_recipe_without_a_single_stage_to_run_is_told_the_same(recipe_dir: Path) -> None:
    run_py = recipe_dir / "run.py"
    run_py.write_text(run_py.read_text().replace('["prepare", "fit", "score"]', "[]"))
    with pytest.raises(RecipeRefused, match="without running any stage"):
        plan_of(recipe_dir, "--training_config", "conf/training.yaml")


def test_exit_status_is_the_recipes(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(RecipeRefused) as refused:
        plan_of(tmp_path)
    assert refused.value.exit_status == 137


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path, tmp_path)
    with pytest.raises(LauncherError, match=r"cannot start .*/no/python: No such file"):
        probe_plan(recipe, "/no/python", [])


LEAVES_CHILDREN = """\
import subprocess, sys
for new_session in (False, True):
    subprocess.Popen(["sleep", "25"], start_new_session=new_session)
"""


def test_children_that_run_py_leaves_are_neither_waited_for_nor_left(recipe_dir: Path) -> None:
    run_py = recipe_dir / "run.py"
    run_py.write_text(LEAVES_CHILDREN + run_py.read_text())
    start_s = time.monotonic()
    plan = plan_of(recipe_dir, "--training_config", "conf/training.yaml")
    assert time.monotonic() - start_s < 20
    assert len(plan.stages) == 3
    assert processes_in(recipe_dir) == []


def test_a_run_py_that_never_comes_to_its_stages_is_ended(tmp_path: Path) -> None:
    text = LEAVES_CHILDREN + "print('asking the server', flush=True)\nimport time; time.sleep(60)\n"
    (tmp_path / "run.py").write_text(text)
    recipe = Recipe(tmp_path, tmp_path)
    with pytest.raises(LauncherError) as raised:
        probe_plan(recipe, sys.executable, [], timeout_s=2)
    assert "has not come to run its stages within 2 s" in str(raised.value)
    assert "asking the server\n" in str(raised.value)
    assert "probe_timeout_s=SECONDS" in str(raised.value)
    assert processes_in(tmp_path) == []


def processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                found.append((entry / "cmdline").read_text())
    return found


def test_plan_of_another_schema_is_refused() -> None:
    with pytest.raises(LauncherError, match="schema 99; this launcher reads schema 1"):
        StagePlan.from_record({"schema": 99})


def test_the_probe_needs_only_the_standard_library() -> None:
    code = f"import runpy; runpy.run_path({probe.__file__!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
