"""Every code block of ``adding-a-stage.md``, run as it stands.

Blocks are taken from the document by their order; what a block leaves out, since the prose
around it supplies it, is put before it here and nothing inside it is changed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

DOCUMENT = Path(__file__).with_name("adding-a-stage.md")
REPOSITORY = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
(
    CORE_PATTERN,
    STEP2_SYSTEM,
    STEP3_STAGES,
    STEP4_FLAG,
    STEP4_LOAD,
    STEP4_SYSTEM,
    STEP5_REQUIRED,
    STEP6_RUNNER,
    STEP6_SYSTEM,
    MINIMAL_TREE,
    MINIMAL_SYSTEM,
    MINIMAL_RUNNER,
    MINIMAL_COMMAND,
) = BLOCKS


def execute(block: str, **names: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "seed", **names}
    exec(compile(block, str(DOCUMENT), "exec"), namespace)  # noqa: S102 - what this test is for
    return namespace


def run(recipe: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=recipe,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_the_copy_is_the_users_document(shared_data: Path) -> None:
    assert DOCUMENT.read_text() == (shared_data / "seed" / "adding-a-stage.md").read_text()


def test_core_pattern_runs_the_asr_system(hostile_path: Path) -> None:
    (hostile_path / "run.py").write_text(CORE_PATTERN)
    (hostile_path / "training.yaml").write_text("exp_tag: seed\n")
    result = run(
        hostile_path,
        shlex.split(
            "run.py --stages train create_dataset --dry_run --training_config training.yaml"
        ),
    )
    assert result.returncode == 0, result.stderr
    assert "System: ASRSystem" in result.stderr
    assert "Resolved stages: ['create_dataset', 'train']" in result.stderr


def test_step_2_a_stage_is_a_method() -> None:
    from espnet3.utils.stages_utils import run_stages

    namespace = execute(STEP2_SYSTEM)
    system = namespace["MySystem"]()
    system.stage_log_dirs["default"] = Path(os.devnull)
    assert namespace["MySystem"].prepare_labels(system) is None
    with pytest.raises(AttributeError):
        run_stages(system, ["prepare_label"])


def test_step_3_the_list_gives_the_canonical_order() -> None:
    from egs3.TEMPLATE.asr.run import DEFAULT_STAGES, build_parser
    from espnet3.utils.stages_utils import resolve_stages

    stages = execute(STEP3_STAGES)["ALL_STAGES"]
    assert stages == [*DEFAULT_STAGES, "prepare_labels"]
    assert resolve_stages(["infer", "prepare_labels", "train"], stages) == [
        "train",
        "infer",
        "prepare_labels",
    ]
    assert build_parser(stages=stages).parse_args([]).stages == DEFAULT_STAGES


def test_steps_4_to_5_a_config_of_its_own(tmp_path: Path) -> None:
    from egs3.TEMPLATE.asr.run import DEFAULT_STAGES, build_parser
    from espnet3.utils.config_utils import load_config_with_defaults
    from espnet3.utils.run_utils import check_required_configs

    parser = build_parser(stages=DEFAULT_STAGES)
    execute(STEP4_FLAG, parser=parser, Path=Path)
    config = tmp_path / "export.yaml"
    config.write_text("opset: 17\n")
    args = parser.parse_args(["--export_config", str(config)])

    system_class = execute(STEP4_SYSTEM, BaseSystem=execute(STEP2_SYSTEM)["BaseSystem"])["MySystem"]
    standard = {
        name: OmegaConf.create({"exp_dir": str(tmp_path)})
        for name in ("train_config", "infer_config", "metric_config")
    }
    namespace = execute(
        STEP4_LOAD,
        args=args,
        load_config_with_defaults=load_config_with_defaults,
        system_cls=system_class,
        **standard,
    )
    system = namespace["system"]
    assert system.export_config.opset == 17
    assert system.training_config is standard["train_config"]
    assert system.inference_config is standard["infer_config"]
    assert system.metrics_config is standard["metric_config"]

    required = execute(STEP5_REQUIRED, export_config=None, **standard)["required_configs"]
    assert list(required) == ["train", "infer", "measure", "export"]
    with pytest.raises(ValueError, match=r"Config not provided for stage\(s\): export"):
        check_required_configs(["train", "export"], required, {name: [name] for name in required})


def test_step_6_runner_and_mapping(tmp_path: Path) -> None:
    system_class = execute(STEP6_SYSTEM)["MySystem"]
    labels = OmegaConf.create({"window": 3})

    class Complete(system_class):  # type: ignore[misc, valid-type]
        def prepare_labels(self) -> None:
            logging.getLogger("recipe").info("window %d", self.prepare_labels_config.window)

    training = OmegaConf.create({"exp_dir": str(tmp_path / "exp")})
    execute(
        STEP6_RUNNER,
        system_cls=Complete,
        system=Complete(prepare_labels_config=labels, training_config=training),
        args=SimpleNamespace(stages=["prepare_labels"]),
        stages_to_run=["prepare_labels"],
    )
    log = (tmp_path / "exp" / "prepare_labels.log").read_text()
    assert "[prepare_labels] window 3" in log
    metadata = json.loads((tmp_path / "exp" / "prepare_labels.metadata.json").read_text())
    assert metadata["configs"]["prepare_labels"]["resolved"] == {"window": 3}


@pytest.fixture
def minimal_recipe(tmp_path: Path) -> Path:
    """Return the minimal example, laid out as its tree says, below a folder with a space."""
    root = tmp_path / "my work"
    folder = root
    for line in MINIMAL_TREE.splitlines():
        name = line.lstrip("│├└─ \u00a0")
        if line.startswith("egs3"):
            folder = root / line
            folder.mkdir(parents=True)
            parent = folder
        elif line.startswith(("│", " ")):
            (parent / name).touch()
        elif name.endswith("/"):
            parent = folder / name
            parent.mkdir()
        else:
            (folder / name).touch()
    (folder / "src" / "my_system.py").write_text(MINIMAL_SYSTEM)
    (folder / "run.py").write_text(MINIMAL_RUNNER)
    (folder / "conf" / "prepare_labels.yaml").write_text("window: 3\n")
    return folder


def test_minimal_recipe_runs_as_documented(minimal_recipe: Path) -> None:
    interpreter, *command = shlex.split(MINIMAL_COMMAND)
    assert interpreter == "python"
    result = run(minimal_recipe, command)
    assert result.returncode == 0, result.stderr
    assert "Preparing labels" in result.stdout
    assert "System: MySystem" in result.stderr
    assert (minimal_recipe / "logs" / "prepare_labels.log").is_file()

    (minimal_recipe / "conf" / "training.yaml").write_text("exp_tag: first\n")
    with_training = [*command, "--training_config", "conf/training.yaml"]
    for _ in range(2):
        assert run(minimal_recipe, with_training).returncode == 0
    exp_dir = minimal_recipe / "exp" / "first"
    assert {path.name for path in exp_dir.glob("*.log")} == {
        "prepare_labels.log",
        "prepare_labels1.log",
    }
    metadata = json.loads((exp_dir / "prepare_labels.metadata.json").read_text())
    assert metadata["configs"]["prepare_labels"] == {
        "path": str(minimal_recipe / "conf" / "prepare_labels.yaml"),
        "resolved": {"window": 3},
    }


def test_minimal_recipe_fails_early_without_its_config(minimal_recipe: Path) -> None:
    result = run(minimal_recipe, ["run.py", "--stages", "prepare_labels"])
    assert result.returncode == 1
    assert result.stderr.strip() == "error: prepare_labels stage requires --prepare_labels_config."
    assert not (minimal_recipe / "logs").exists()
