"""The stage plan: which stages a recipe would run, in its own order, and where each one logs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from launcher import probe
from launcher.errors import LauncherError, RecipeRefused
from launcher.job import guard
from launcher.masking import RULES, mask_arguments, mask_configs
from launcher.output import without_log_records
from launcher.recipe import Recipe, default_python, project_root
from launcher.recorded.kinds import record as of_record
from launcher.recorded.schemas import PLAN, PLAN_MORE

_PLAN = of_record(PLAN, PLAN_MORE)
_TRACEBACK = "Traceback (most recent call last):"
_LACKS_MODULE = "ModuleNotFoundError: No module named"


class RecipeLacksModule(RecipeRefused):
    """The interpreter that was tried cannot import what ``run.py`` needs."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan. Paths are absolute.

    Attributes:
        roles: the configs on which it may depend; None where that cannot be told.
    """

    name: str
    log_dir: Path
    configs: Mapping[str, Path]
    roles: tuple[str, ...] | None = None


@dataclass(frozen=True)
class StagePlan:
    """What the recipe would run, stages in canonical order.

    Attributes:
        paths: the absolute ones that stand in the recipe's configs.
        framework: the folder from which the recipe imports ``espnet3``, where that is known.
        resolved: what the configs come to, by role and dotted key, secrets masked. It stands in no
            record of the plan: a launch keeps it in a file of its own.
    """

    recipe_dir: Path
    system: str
    exp_dir: Path | None
    stages: tuple[PlannedStage, ...]
    paths: tuple[Path, ...] = ()
    framework: Path | None = None
    resolved: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> StagePlan:
        """Read what the probe wrote.

        Raises:
            LauncherError: the record is of another schema.
            Unfit: it is not whole.
        """
        if record.get("schema") != probe.SCHEMA:
            raise LauncherError(
                f"the probe wrote a plan of schema {record.get('schema')}; "
                f"this launcher reads schema {probe.SCHEMA}"
            )
        record = _PLAN(record)
        return cls(
            recipe_dir=Path(record["recipe_dir"]),
            system=record["system"],
            exp_dir=None if record["exp_dir"] is None else Path(record["exp_dir"]),
            stages=tuple(
                PlannedStage(
                    name=stage["name"],
                    log_dir=Path(stage["log_dir"]),
                    configs={role: Path(path) for role, path in stage["configs"].items()},
                    roles=None if stage.get("roles") is None else tuple(stage["roles"]),
                )
                for stage in record["stages"]
            ),
            paths=tuple(Path(path) for path in record.get("paths", ())),
            framework=Path(record["framework"]) if record.get("framework") else None,
            resolved=mask_configs(record.get("resolved", {})),
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
                    "roles": None if stage.roles is None else list(stage.roles),
                }
                for stage in self.stages
            ],
            "paths": [str(path) for path in self.paths],
            "framework": None if self.framework is None else str(self.framework),
        }


class Start(Protocol):
    """Tells how a command is started where the recipe can be imported."""

    def __call__(
        self, command: Sequence[str], folder: Path
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        """Return command line and environment of the process to start.

        It writes to ``folder`` and ends at the end of its standard input.
        """


def probe_plan(
    recipe: Recipe,
    python: str,
    arguments: Sequence[str],
    *,
    timeout_s: float = 120.0,
    start: Start | None = None,
) -> StagePlan:
    """Have the recipe make its plan, in a process of its interpreter. Nothing of it is run.

    Args:
        recipe: where ``run.py`` is.
        python: the recipe's interpreter.
        arguments: for ``run.py``, ``--stages`` included.
        timeout_s: seconds after which ``run.py`` is ended.
        start: how it is started; on this host when None.

    Raises:
        RecipeLacksModule: the interpreter cannot import what ``run.py`` needs.
        RecipeRefused: ``run.py`` ended before it came to run stages; its message and exit status.
        LauncherError: it did not come there in time, or its interpreter cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="launcher-probe-") as folder:
        output, script = Path(folder) / "plan.json", Path(folder) / "probe.py"
        shutil.copyfile(probe.__file__, script)
        shutil.copyfile(project_root() / RULES, Path(folder) / probe.MASKING_RULES)
        command = [python, str(script), str(output), str(recipe.directory / "run.py"), *arguments]
        finished = _run_guarded(command, recipe, Path(folder), timeout_s=timeout_s, start=start)
        if output.exists():
            plan = StagePlan.from_record(json.loads(output.read_text(encoding="utf-8")))
            if plan.stages:
                return plan
    raise _refusal(finished, recipe, arguments)


def _run_guarded(
    command: Sequence[str],
    recipe: Recipe,
    folder: Path,
    *,
    timeout_s: float,
    start: Start | None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the recipe's folder; nothing that it started outlives it.

    It writes to files: a pipe would not end before the last process that it has left behind.
    """
    files = [folder / "stdout", folder / "stderr"]
    if start is None:
        started: Sequence[str] = [default_python(), guard.__file__, "0", *command]
        environment: Mapping[str, str] = {**os.environ, **recipe.environment()}
    else:
        started, environment = start(command, folder)
    with files[0].open("wb") as stdout, files[1].open("wb") as stderr:
        process = subprocess.Popen(
            started,
            cwd=recipe.directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
        )
    with process:  # leaving it closes the standard input, which ends the guard and all below it
        try:
            exit_status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            exit_status = None
    said, complained = (file.read_text(errors="replace") for file in files)
    if exit_status is None:
        last = (complained.strip() or said.strip() or "(nothing)").splitlines()[-1]
        raise LauncherError(
            f"{recipe.directory}/run.py has not come to run its stages within {timeout_s:g} s, so "
            f"it was ended. The last that it printed: {last}\n"
            "If it only needs longer, allow more with probe_timeout_s=SECONDS."
        )
    if exit_status in guard.CANNOT_START and complained.startswith(guard.cannot_start(command)):
        reason = complained.removeprefix(guard.cannot_start(command)).strip()
        raise LauncherError(
            f"cannot start the recipe's interpreter {command[0]}: {reason}. "
            "Name another one with container.python=PATH."
        )
    return subprocess.CompletedProcess(command, exit_status, said, complained)


def _refusal(
    finished: subprocess.CompletedProcess[str], recipe: Recipe, arguments: Sequence[str]
) -> RecipeRefused:
    said = finished.stderr.strip() or finished.stdout.strip()
    command = shlex.join(["python", "run.py", *mask_arguments(arguments)])
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
    refusal = RecipeLacksModule if _LACKS_MODULE in said else RecipeRefused
    return refusal(f"{recipe.label}/run.py: {said}", exit_status=finished.returncode)


def _last_exception(text: str) -> str:
    """Return the message of the last traceback: what follows its indented frames."""
    lines = text[text.rindex(_TRACEBACK) :].splitlines()[1:]
    while lines and (lines[0].startswith(" ") or not lines[0]):
        lines.pop(0)
    return "\n".join(lines)
