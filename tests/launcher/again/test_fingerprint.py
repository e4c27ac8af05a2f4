"""Fingerprints of stages: what counts, what does not, and how a difference is named."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from espnet3.utils.run_utils import OPTIONAL_ROLES, REQUIRED_ROLES
from launcher import probe
from launcher.again.fingerprint import (
    Basis,
    compared_configs,
    differences,
    fingerprint,
    is_whole,
    write_configs,
)
from launcher.clusters import local
from launcher.config import LaunchConfig
from launcher.containers.none import NoContainer, Settings
from launcher.errors import RecordError
from launcher.images.pin import ImagePin
from launcher.launch import Launch, build_launch
from launcher.plan import PlannedStage, StagePlan
from launcher.recipe import Recipe
from launcher.records import LaunchRecords
from launcher.snapshot import plan_snapshot, write_manifest
from launcher.snapshot.files import CodeFiles, is_run

TRAINING = {"optimizer.lr": 0.004, "epochs": 3, "hub.access_token": "***"}
PIN = ImagePin("cpu", repository="registry.example/cpu", digest="sha256:" + "a" * 64)


def make_launch(
    recipe_dir: Path,
    *,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    arguments: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    pin: ImagePin | None = PIN,
) -> Launch:
    """One stage ``fit`` that depends on the training config, of three."""
    files = {
        f"{role}_config": recipe_dir / "conf" / f"{role}.yaml" for role in ("training", "metrics")
    }
    stage = PlannedStage("fit", recipe_dir / "exp", files, roles=("training_config",))
    resolved = configs or {"training_config": TRAINING, "metrics_config": {"metrics": "wer"}}
    plan = StagePlan(recipe_dir, "src.System", recipe_dir / "exp", (stage,), resolved=resolved)
    config = LaunchConfig(cluster=local.Settings(), container=Settings(), env=env or {})
    return build_launch(
        Recipe(recipe_dir, recipe_dir),
        plan,
        config,
        NoContainer(config.container),
        ["--training_config", "conf/training.yaml", *arguments],
        directory=recipe_dir / ".launches" / "one",
        pins={"fit": pin} if pin else {},
    )


def basis(launch: Launch) -> Basis:
    root = launch.recipe.code_root
    plan = plan_snapshot("none", [root], [root], launch.directory / "snapshot")
    return Basis(CodeFiles.now(plan), compared_configs(launch.plan))


def changed(before: Launch, was: Basis, after: Launch) -> list[str]:
    """What is named as changed between two launches, the first of which has the basis ``was``."""
    now = basis(after)
    then = json.loads(json.dumps(fingerprint(before.jobs[0], before, was)))
    assert is_whole(then)
    return differences(
        then, fingerprint(after.jobs[0], after, now), was, now, below=after.recipe.code_root
    )


@pytest.fixture
def launch(recipe_dir: Path) -> Launch:
    return make_launch(recipe_dir)


def test_unchanged_is_unchanged(launch: Launch, recipe_dir: Path) -> None:
    was = basis(launch)
    for name in ("conf/other.yaml", "docs/a.txt", "tests/test_it.py", "README.md", ".gitignore"):
        (recipe_dir / name).parent.mkdir(exist_ok=True)
        (recipe_dir / name).write_text("new")
    os.utime(recipe_dir / "run.py", (1, 1))
    assert changed(launch, was, make_launch(recipe_dir)) == []


def test_each_field_is_named(launch: Launch, recipe_dir: Path) -> None:
    was = basis(launch)
    other = replace(PIN, digest="sha256:" + "b" * 64)
    (line,) = changed(launch, was, make_launch(recipe_dir, pin=other))
    assert line == f"image: {PIN.digest} → {other.digest}"
    (line,) = changed(launch, was, make_launch(recipe_dir, arguments=("--limit", "3 of 4")))
    assert line == "arguments: – → --limit '3 of 4'"
    lines = changed(launch, was, make_launch(recipe_dir, env={"SEED": "7", "HF_TOKEN": "hf_x"}))
    assert lines == ["environment HF_TOKEN: – → ***", "environment SEED: – → 7"]
    configs = {"training_config": {**TRAINING, "optimizer.lr": 0.002}}
    lines = changed(launch, was, make_launch(recipe_dir, configs=configs))
    assert lines == ["config training.optimizer.lr: 0.004 → 0.002"]
    (recipe_dir / "run.py").unlink()
    (recipe_dir / "src" / "tiny_system.py").write_text("pass")
    (recipe_dir / "src" / "new.py").touch()
    lines = changed(launch, was, make_launch(recipe_dir))
    assert lines == ["code: run.py (deleted), src/new.py (new), src/tiny_system.py"]


def test_a_config_that_the_stage_does_not_read_is_not_compared(
    launch: Launch, recipe_dir: Path
) -> None:
    configs = {"training_config": TRAINING, "metrics_config": {"metrics": "cer"}}
    assert changed(launch, basis(launch), make_launch(recipe_dir, configs=configs)) == []


def test_many_changes_are_named_in_part(launch: Launch, recipe_dir: Path) -> None:
    was = basis(launch)
    configs = {"training_config": {**TRAINING, **{f"key{n}": n for n in range(9)}}}
    for number in range(9):
        (recipe_dir / "src" / f"m{number}.py").touch()
    code, *keys = changed(launch, was, make_launch(recipe_dir, configs=configs))
    assert code.endswith("src/m4.py (new), and 4 more")
    assert keys[-1] == "config training: 4 more keys"
    assert len(keys) == 6


def test_what_a_config_names_as_yaml_counts_by_its_content(recipe_dir: Path) -> None:
    configs = {"training_config": {"augment": "conf/augment.yaml", "text": "no.yaml"}}
    (recipe_dir / "conf" / "augment.yaml").write_text("masks: 2")
    launch = make_launch(recipe_dir, configs=configs)
    was = basis(launch)
    (recipe_dir / "conf" / "augment.yaml").write_text("masks: 3")
    lines = changed(launch, was, make_launch(recipe_dir, configs=configs))
    assert lines == ["config training.augment (the file): its content changed"]


def test_a_config_that_was_not_loaded_counts_by_its_file(recipe_dir: Path) -> None:
    for configs in ({"training_config": {"": "conf/training.yaml"}}, {"other_config": {}}):
        launch = make_launch(recipe_dir, configs=configs)
        was = basis(launch)
        (recipe_dir / "conf" / "training.yaml").write_text(f"more: {len(was.configs)}")
        lines = changed(launch, was, make_launch(recipe_dir, configs=configs))
        assert lines == ["config training: its content changed"]


def test_it_is_known_that_something_changed_when_it_is_not_known_what(
    launch: Launch, recipe_dir: Path, tmp_path: Path
) -> None:
    then = fingerprint(launch.jobs[0], launch, basis(launch))
    (recipe_dir / "run.py").write_text("pass")
    after = make_launch(recipe_dir, configs={"training_config": {}})
    now = basis(after)
    gone = Basis.recorded(LaunchRecords(tmp_path / "cleaned away"))
    lines = differences(then, fingerprint(after.jobs[0], after, now), gone, now, below=recipe_dir)
    assert lines == [
        "code: not the same; which files, is not on record",
        "config training: not the same; which keys, is not on record",
    ]


def test_the_basis_is_read_back_from_the_launch(launch: Launch) -> None:
    root = launch.recipe.code_root
    write_manifest(plan_snapshot("none", [root], [root], launch.directory / "snapshot"))
    was = basis(launch)
    write_configs(LaunchRecords(launch.directory), was.configs)
    assert Basis.recorded(LaunchRecords(launch.directory)) == was
    (launch.directory / "snapshot" / "manifest.json").write_text('{"roots": 3}')
    with pytest.raises(RecordError, match="cannot be read as the manifest"):
        CodeFiles.recorded(launch.directory / "snapshot")


@pytest.mark.parametrize(
    "record", [None, {}, {"image": None}, {"code": 1, "config": [], "arguments": 3}]
)
def test_what_is_no_fingerprint_is_none(record: Any) -> None:
    assert not is_whole(record)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("espnet3/utils/run_utils.py", True),
        ("egs3/fsdd/asr/dataset/speakers.yaml", True),
        ("egs3/fsdd/asr/conf/training.yaml", False),
        ("mkdocs.yml", False),
        ("docs/conf.py", False),
        ("egs3/fsdd/asr/README.md", False),
        ("tests/conftest.py", False),
        (".github/run.sh", False),
        ("launcher/cli.py", False),
        ("containers/cpu/image.sh", False),
    ],
)
def test_which_files_of_the_project_count(name: str, counts: bool) -> None:
    assert is_run(name, is_project=True) is counts


def test_a_recipe_may_have_a_folder_called_launcher() -> None:
    assert is_run("launcher/cli.py", is_project=False)


class System:
    """A system of the framework, with a config of its own and a method of its own."""

    def __init__(self) -> None:
        training = {"lr": 0.1, "layers": [{"size": 4}], "none": None, "bad": "${nowhere}"}
        self.training_config = OmegaConf.create(training)
        self.labels_config = Path("/labels")
        self.empty_config: dict[str, Any] = {}
        self.long_config = {"text": "x" * 5000}
        self.self_config: dict[str, Any] = {}
        self.self_config["again"] = self.self_config
        self.missing_config = None

    @property
    def broken_config(self) -> None:
        raise RuntimeError("needs the network")

    def train(self) -> None: ...

    train.__module__ = "espnet3.systems.asr.system"

    def infer(self) -> None: ...


def test_configs_of_every_kind_are_resolved_as_far_as_they_can_be() -> None:
    resolved = probe.resolved_configs(System())
    assert resolved["training_config"] == {"lr": 0.1, "layers.0.size": 4, "none": None}
    assert resolved["labels_config"] == {"": "/labels"}
    assert resolved["empty_config"] == {"": "{}"}
    assert resolved["long_config"]["text"].startswith("sha256:")
    assert set(resolved) == {
        f"{name}_config" for name in ("training", "labels", "empty", "long", "self")
    }
    assert json.loads(json.dumps(resolved)) == resolved


def test_a_config_without_end_is_cut_off_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_CONFIG_VALUES", 5)
    system = System()
    system.training_config = OmegaConf.create({f"key{number}": number for number in range(20)})
    assert probe.resolved_configs(system)["training_config"]["…"] == "more than are compared"


def test_roles_are_those_of_a_stage_and_of_the_ones_before(monkeypatch) -> None:
    assert list(REQUIRED_ROLES)[-1] == "pack_model"
    roles = probe.stage_roles(System(), ["training_config", "labels_config", "metrics_config"])
    assert roles["train"] == ["labels_config", "training_config"]
    assert "infer" not in roles  # the recipe's own: nobody knows what it reads
    monkeypatch.setattr(System, "infer", System.train)
    roles = probe.stage_roles(System(), ["labels_config", "demo_config"])
    assert roles["infer"] == [
        *("demo_config", "inference_config", "labels_config", "training_config")
    ]
    assert OPTIONAL_ROLES == {"pack_model": ("publication",)}


def test_secrets_in_configs_are_masked_before_anything_is_written() -> None:
    record = {
        **{"schema": 1, "recipe_dir": "/r", "system": "S", "exp_dir": None, "stages": []},
        "resolved": {
            "training_config": {
                "hub.access_token": "hf_abcdef",
                "credentials.0.user": "me",
                "tokenizer.bos_token": "<s>",
                "log_to": "https://me:hunter22@logs.example/x",
                "share_password": False,
            }
        },
    }
    plan = StagePlan.from_record(record)
    assert plan.resolved["training_config"] == {
        "hub.access_token": "***",
        "credentials.0.user": "***",
        "tokenizer.bos_token": "<s>",
        "log_to": "https://me:***@logs.example/x",
        "share_password": False,
    }
    assert "resolved" not in plan.to_record()


def test_code_that_is_not_all_on_record_never_holds(launch: Launch, tmp_path: Path) -> None:
    was = basis(launch)
    bare = tmp_path / "bare"
    bare.mkdir()
    roots = [launch.recipe.code_root, bare]
    plan = plan_snapshot("none", roots, roots, launch.directory / "snapshot")
    assert CodeFiles.now(plan).digest is None
    now = replace(was, code=CodeFiles.now(plan))
    then = fingerprint(launch.jobs[0], launch, now)
    lines = differences(then, then, now, now, below=launch.recipe.code_root)
    assert lines == [
        "code: it is not all on record, being too large or in no git work tree (snapshot=copy)"
    ]
