"""A tiny recipe as in the seed document, for the real framework, in a hostile path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

TRAINING_YAML = """\
data_dir: ${recipe_dir}/data
exp_dir: ${recipe_dir}/exp/tiny
"""

SYSTEM = """\
import os
import subprocess
import sys
import time
from pathlib import Path

from espnet3.systems.base.system import BaseSystem


class TinySystem(BaseSystem):
    def __init__(self, labels_config=None, **kwargs):
        super().__init__(
            stage_log_mapping={
                name: "training_config.exp_dir" for name in ("prepare", "fit", "score")
            },
            **kwargs,
        )
        self.labels_config = labels_config

    def prepare(self):
        print("preparing")
        if os.environ.get("TINY_FAIL"):
            raise RuntimeError("the disk is on fire")
        seconds = float(os.environ.get("TINY_SLEEP_S", "0"))
        if seconds:
            subprocess.Popen(["sleep", "300"], start_new_session=True)
            Path(self.exp_dir, "prepare.pid").write_text(str(os.getpid()))
            time.sleep(seconds)

    def fit(self):
        return {"steps": 3}

    def score(self):
        return {"test": {"WER": 0.0}}
"""

RUN = """\
from pathlib import Path

from egs3.TEMPLATE.asr.run import build_parser, main, parse_cli_and_stage_args
from src.tiny_system import TinySystem

ALL_STAGES = ["prepare", "fit", "score"]

if __name__ == "__main__":
    parser = build_parser(stages=ALL_STAGES)
    parser.add_argument("--labels_config", type=Path, default=None)
    args, stages_to_run = parse_cli_and_stage_args(parser, stages=ALL_STAGES)
    main(
        args=args,
        system_cls=lambda **kwargs: TinySystem(labels_config=args.labels_config, **kwargs),
        stages=ALL_STAGES,
    )
"""


def write_recipe(folder: Path) -> Path:
    """Write the recipe's files into ``folder``, and return it."""
    for name, content in {
        "run.py": RUN,
        "src/tiny_system.py": SYSTEM,
        "conf/training.yaml": TRAINING_YAML,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that no SLURM answers which the shell that runs the tests knows of."""
    monkeypatch.delenv("SLURM_CONF", raising=False)


@pytest.fixture
def recipe_dir(hostile_path: Path) -> Path:
    """Return the tiny recipe in a folder with a hostile name."""
    return write_recipe(hostile_path / "tiny" / "asr")


Launcher = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    """Return ``python -m launcher`` as a function of its arguments, run as a person would."""

    def run(*arguments: str, cwd: Path | None = None, **variables: str):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            cwd=cwd or tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
