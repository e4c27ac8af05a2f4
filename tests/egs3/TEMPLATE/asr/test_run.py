from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = """\
from egs3.TEMPLATE.asr.run import ALL_STAGES, build_parser, main, parse_cli_and_stage_args
from espnet3.systems.base.system import BaseSystem

class Recorder(BaseSystem):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
    def train(self): print("train:", self.training_config.exp_dir)
    def infer(self): print("infer:", self.inference_config.inference_dir)
    def measure(self): print("measure:", self.metrics_config.inference_dir)

if __name__ == "__main__":
    parser = build_parser(stages=ALL_STAGES)
    args, stages_to_run = parse_cli_and_stage_args(parser, stages=ALL_STAGES)
    main(args=args, system_cls=lambda **kwargs: Recorder(**kwargs), stages=%s)
"""
CONFIGS = {
    "training": "exp_tag: small\nexp_dir: exp/${exp_tag}\n",
    "inference": "inference_dir: ${exp_dir}/${self_name:}\n",
    "metrics": "note: 1\n",
}


@pytest.fixture(params=["stages_to_run", "ALL_STAGES"])
def recipe(hostile_path: Path, request: pytest.FixtureRequest) -> Path:
    (hostile_path / "conf").mkdir()
    (hostile_path / "run.py").write_text(RUNNER % request.param)
    for name, content in CONFIGS.items():
        (hostile_path / "conf" / f"{name}.yaml").write_text(content)
    return hostile_path


def run(recipe: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(recipe / "run.py"), *arguments],
        cwd=cwd or recipe,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )


def configs(*roles: str) -> list[str]:
    return [word for role in roles for word in (f"--{role}_config", f"conf/{role}.yaml")]


def written(recipe: Path) -> list[str]:
    return sorted(
        str(p.relative_to(recipe)) for p in recipe.rglob("*") if "__pycache__" not in str(p)
    )


@pytest.mark.parametrize("elsewhere", [False, True])
def test_stages_run_in_order_from_any_folder(recipe: Path, elsewhere: bool, tmp_path: Path) -> None:
    result = run(
        recipe,
        "--stages",
        "measure",
        "infer",
        "train",
        *configs("training", "inference", "metrics"),
        cwd=tmp_path if elsewhere else recipe,
    )
    assert result.returncode == 0, result.stderr
    exp_dir = recipe / "exp" / "small"
    assert result.stdout.splitlines() == [
        f"train: {exp_dir}",
        f"infer: {exp_dir}/inference",
        f"measure: {exp_dir}/inference",
    ]
    assert "System: Recorder" in result.stderr
    assert (exp_dir / "train.log").is_file()
    assert (exp_dir / "inference" / "measure.metadata.json").is_file()


def test_a_dry_run_shows_order_logs_and_configs_and_creates_nothing(recipe: Path) -> None:
    before = written(recipe)
    result = run(
        recipe, "--stages", "infer", "train", "--dry_run", *configs("training", "inference")
    )
    assert result.returncode == 0, result.stderr
    lines = [
        line.split("[DRY RUN]")[1].strip() for line in result.stderr.splitlines() if "[DRY" in line
    ]
    exp_dir = recipe / "exp" / "small"
    assert [line for line in lines if not line.startswith(("training", "inference"))] == [
        "would run stage: train",
        f"log: {exp_dir}/train.log",
        "would run stage: infer",
        f"log: {exp_dir}/inference/infer.log",
    ]
    assert f"training_config: {recipe}/conf/training.yaml" in lines
    assert result.stdout == ""
    assert written(recipe) == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--stages", "trian"], 2, "Unknown stage 'trian'. Did you mean 'train'?"),
        (
            ["--stages", "train", "infer", *configs("metrics")],
            1,
            "Config not provided for stage(s): train, infer. "
            "Use --training_config, --inference_config.",
        ),
        (
            ["--stages", "train", "--training_config", "conf/trainin.yaml"],
            1,
            "Did you mean 'training'",
        ),
        (["--stages", "infer", *configs("inference")], 1, "Give --training_config as well"),
    ],
)
def test_mistakes_end_with_one_message_and_create_nothing(
    recipe: Path, arguments: list[str], status: int, message: str
) -> None:
    before = written(recipe)
    result = run(recipe, *arguments)
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert written(recipe) == before


def test_help_names_the_stages_in_order(recipe: Path) -> None:
    result = run(recipe, "--help")
    assert result.returncode == 0
    stages = "create_dataset, train_tokenizer, collect_stats, train, infer, measure, pack_model"
    shown = " ".join(result.stdout.split())
    assert f"Stages, in order: {stages}." in shown
    assert f"(default: {stages.replace(',', '')})" in shown


def test_paths_are_shown_without_detours(recipe: Path) -> None:
    arguments = ["--dry_run", "--stages", "train", "--training_config", "../conf/training.yaml"]
    result = subprocess.run(
        [sys.executable, "../run.py", *arguments],
        cwd=recipe / "conf",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    assert result.returncode == 0, result.stderr
    assert f"log: {recipe}/exp/small/train.log" in result.stderr
    assert f"training_config: {recipe}/conf/training.yaml" in result.stderr


def test_a_slip_in_a_config_of_its_own_is_one_message(recipe: Path) -> None:
    runner = (recipe / "run.py").read_text()
    asks = "def train(self): print(self.training_config.window.length_s)"
    (recipe / "run.py").write_text(re.sub(r"def train.*", asks, runner))
    config = recipe / "conf" / "training.yaml"
    config.write_text(config.read_text() + "window: {lenght_s: 3}\n")
    result = run(recipe, "--stages", "train", *configs("training"))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = (recipe / "run.py").read_text().splitlines().index(f"    {asks}") + 1
    assert (
        f"{config} has no key 'window.length_s', which run.py, line {line}, asks for. "
        "Did you mean 'lenght_s'? Found there: lenght_s."
    ) in result.stderr
