"""Find out what a recipe would run: ``probe.py OUTPUT.json run.py ARGUMENTS…``.

Every ESPnet3 recipe ends in one call, ``espnet3.utils.stages_utils.run_stages(system=,
stages_to_run=, args=, log=)``. This file, which needs only the standard library, runs the recipe's
own ``run.py`` with that function replaced by a recorder. By then the recipe has parsed its
arguments, put its stages in order, loaded and checked its configs and built its System; the
recorder writes that down instead of running it. It is run by the recipe's interpreter, from the
recipe's folder.

The replacement is made by an import hook as the very last step of importing ``stages_utils``, so
that a module which says ``from espnet3.utils.stages_utils import run_stages`` gets the recorder,
however early it says so.

Output::

    {"schema": 1, "recipe_dir": …, "system": …, "exp_dir": … | null,
     "stages": [{"name": …, "log_dir": …, "configs": {role: path}}]}
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import runpy
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMA = 1
SEAM_MODULE, SEAM_FUNCTION = "espnet3.utils.stages_utils", "run_stages"


class Planned(BaseException):
    """Ends the recipe once its plan is written. No ``except Exception`` of a recipe catches it."""


def main(output: Path, run_py: Path, arguments: Sequence[str]) -> None:
    """Run ``run_py`` as ``python run.py`` would, up to the point where stages would run."""

    def record(
        system: Any, stages_to_run: Iterable[str], args: Any = None, log: Any = None, **_: Any
    ) -> None:
        plan = describe(system, list(stages_to_run), args, recipe_dir=run_py.parent)
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(plan), encoding="ascii")
        partial.replace(output)  # whoever finds a plan finds it whole
        raise Planned

    sys.meta_path.insert(0, SeamFinder(record))
    sys.path[0] = str(run_py.parent)
    sys.argv = [run_py.name, *arguments]
    try:
        runpy.run_path(str(run_py), run_name="__main__")
    except Planned:
        # Past whatever the recipe may have set up to run at exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def describe(system: Any, stages: list[str], args: Any, *, recipe_dir: Path) -> dict[str, Any]:
    """Return the plan as JSON-able values.

    Raises:
        SystemExit: the system has no method for one of the stages.
    """
    missing = [name for name in stages if not callable(getattr(system, name, None))]
    if missing:
        raise SystemExit(
            f"{type(system).__name__} has no stage method: {', '.join(missing)}. "
            "Add the method to the system, or take the name out of the stages in run.py."
        )
    configs = {
        role: str(Path(path).resolve())
        for role, path in sorted(vars(args).items() if args is not None else ())
        if role.endswith("_config") and isinstance(path, (str, Path))
    }
    return {
        "schema": SCHEMA,
        "recipe_dir": str(recipe_dir),
        "system": f"{type(system).__module__}.{type(system).__qualname__}",
        "exp_dir": _exp_dir(system),
        "stages": [
            {"name": name, "log_dir": _log_dir(system, name), "configs": configs} for name in stages
        ],
    }


class SeamFinder(importlib.abc.MetaPathFinder):
    """Import hook: after ``stages_utils`` is executed, its ``run_stages`` is the recorder."""

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Wrap the loader of the seam module; leave every other module alone."""
        if fullname != SEAM_MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ReplacingLoader(spec.loader, self.recorder)
        return spec


class _ReplacingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any, recorder: Any) -> None:
        self.loader, self.recorder = loader, recorder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        setattr(module, SEAM_FUNCTION, self.recorder)


def _log_dir(system: Any, stage: str) -> str:
    directories = getattr(system, "stage_log_dirs", None)
    if directories is not None:
        directory = directories.get(stage) or directories["default"]
    else:  # espnet 202611 and later
        from espnet3.contract.stages import stage_log_dir

        directory = stage_log_dir(system, stage)
    return str(Path(directory).resolve())


def _exp_dir(system: Any) -> str | None:
    directory = getattr(system, "exp_dir", None)
    if directory is None:
        directory = getattr(getattr(system, "training_config", None), "exp_dir", None)
    return None if directory is None else str(Path(directory).resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
