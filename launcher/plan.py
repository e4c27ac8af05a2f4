"""The stage plan: which stages a recipe would run, in its own order, and where each one logs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import probe
from launcher.errors import LauncherError, RecipeRefused
from launcher.output import without_log_records
from launcher.recipe import Recipe

_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan. Paths are absolute."""

    name: str
    log_dir: Path
    configs: Mapping[str, Path]


@dataclass(frozen=True)
class StagePlan:
    """What the recipe would run, stages in canonical order."""

    recipe_dir: Path
    system: str
    exp_dir: Path | None
    stages: tuple[PlannedStage, ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> StagePlan:
        """Read what the probe wrote.

        Raises:
            LauncherError: the record is of another schema.
        """
        if record.get("schema") != probe.SCHEMA:
            raise LauncherError(
                f"the probe wrote a plan of schema {record.get('schema')}; "
                f"this launcher reads schema {probe.SCHEMA}"
            )
        return cls(
            recipe_dir=Path(record["recipe_dir"]),
            system=record["system"],
            exp_dir=None if record["exp_dir"] is None else Path(record["exp_dir"]),
            stages=tuple(
                PlannedStage(
                    name=stage["name"],
                    log_dir=Path(stage["log_dir"]),
                    configs={role: Path(path) for role, path in stage["configs"].items()},
                )
                for stage in record["stages"]
            ),
        )

    def to_record(self) -> dict[str, Any]:
        """Return the plan as JSON-able values, as the probe writes them."""
        return {
            "schema": probe.SCHEMA,
            "recipe_dir": str(self.recipe_dir),
            "system": self.system,
            "exp_dir": None if self.exp_dir is None else str(self.exp_dir),
            "stages": [
                {
                    "name": stage.name,
                    "log_dir": str(stage.log_dir),
                    "configs": {role: str(path) for role, path in stage.configs.items()},
                }
                for stage in self.stages
            ],
        }


def probe_plan(recipe: Recipe, python: str, arguments: Sequence[str]) -> StagePlan:
    """Have the recipe make its plan, in a process of its interpreter. Nothing of it is run.

    Args:
        recipe: where ``run.py`` is.
        python: the recipe's interpreter.
        arguments: for ``run.py``, ``--stages`` included.

    Raises:
        RecipeRefused: ``run.py`` ended before it came to run stages; its message and exit status.
    """
    with tempfile.TemporaryDirectory(prefix="launcher-probe-") as folder:
        output = Path(folder) / "plan.json"
        command = [python, str(Path(probe.__file__)), str(output)]
        command += [str(recipe.directory / "run.py"), *arguments]
        try:
            finished = subprocess.run(
                command,
                cwd=recipe.directory,
                env={**os.environ, **recipe.environment()},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise LauncherError(
                f"cannot start the recipe's interpreter {python}: {error.strerror}. "
                "Name another one with container.python=PATH."
            ) from error
        if output.exists():
            plan = StagePlan.from_record(json.loads(output.read_text(encoding="utf-8")))
            if plan.stages:
                return plan
    raise _refusal(finished, recipe, arguments)


def _refusal(
    finished: subprocess.CompletedProcess[str], recipe: Recipe, arguments: Sequence[str]
) -> RecipeRefused:
    said = finished.stderr.strip() or finished.stdout.strip()
    command = shlex.join(["python", "run.py", *arguments])
    if finished.returncode == 0:
        return RecipeRefused(
            f"{recipe.directory}/run.py ended without running any stage, so there is nothing to "
            f"launch. It printed:\n{said or '(nothing)'}",
            exit_status=1,
        )
    if _TRACEBACK in said:
        said = (
            f"{_last_exception(said)}\n"
            f"(the traceback: cd {shlex.quote(str(recipe.directory))} && {command} --dry_run)"
        )
    said = without_log_records(said) or said
    status = finished.returncode if finished.returncode > 0 else 128 - finished.returncode
    return RecipeRefused(f"{recipe.label}/run.py: {said}", exit_status=status)


def _last_exception(text: str) -> str:
    """Return the message of the last traceback: what follows its indented frames."""
    lines = text[text.rindex(_TRACEBACK) :].splitlines()[1:]
    while lines and (lines[0].startswith(" ") or not lines[0]):
        lines.pop(0)
    return "\n".join(lines)
