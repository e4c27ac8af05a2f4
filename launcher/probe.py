"""Find out what a recipe would run: ``probe.py OUTPUT.json run.py ARGUMENTS…``.

Every ESPnet3 recipe ends in one call, ``espnet3.utils.stages_utils.run_stages(system=,
stages_to_run=, args=, log=)``. This file, which needs only the standard library, runs the recipe's
own ``run.py`` with that function replaced by a recorder. By then the recipe has parsed its
arguments, put its stages in order, loaded and checked its configs and built its System; the
recorder writes that down instead of running it. It is run by the recipe's interpreter, from the
recipe's folder.

The replacement is made by an import hook as the very last step of importing ``stages_utils``, so
that a module which says ``from espnet3.utils.stages_utils import run_stages`` gets the recorder,
however early it says so. Empty folders that the recipe makes on its way there are removed again.

Output::

    {"schema": 1, "recipe_dir": …, "system": …, "exp_dir": … | null,
     "stages": [{"name": …, "log_dir": …, "configs": {role: path}, "roles": [role] | null}],
     "paths": […], "framework": … | null, "resolved": {role: {key: value}}}

``paths`` are the absolute paths that stand in the system's configs: what a stage may want to read
or write, and a container would have to hold. ``resolved`` is what the configs come to, each value
under its dotted key, and ``roles`` are those of which a stage may depend, where that is known.
``framework`` is the folder that ``espnet3`` was imported from. The launcher's own project, which
has one, is only searched after what is installed for the recipe: an ``espnet`` of the package
registry is then the recipe's, and not hidden by it.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import runpy
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMA = 1
MASKING_RULES = "masking_rules.py"  # beside this file, where the launcher puts it
MAX_CONFIG_VALUES = 10_000
_MAX_PATH_CHARACTERS = 4096  # PATH_MAX of Linux
_MAX_DEPTH = 64
_MAX_TEXT = 4096
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

    made = MadeFolders()
    sys.addaudithook(made.note)
    sys.meta_path.insert(0, SeamFinder(record))
    search_launcher_last(run_py.parent)
    sys.path[0] = str(run_py.parent)
    sys.argv = [run_py.name, *arguments]
    try:
        runpy.run_path(str(run_py), run_name="__main__")
    except Planned:
        made.remove_empty()
        # Past whatever the recipe may have set up to run at exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    finally:
        made.remove_empty()


class MadeFolders:
    """The folders that a recipe makes while it is planned, such as upstream's experiment folder."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Audit hook (PEP 578): remember a folder that is about to be made."""
        if event == "os.mkdir":
            path, _, parent_descriptor = arguments
            if parent_descriptor == -1 and not os.path.lexists(path):
                self._paths.append(Path(os.fsdecode(path)).absolute())

    def remove_empty(self) -> None:
        """Remove those in which nothing is."""
        while self._paths:
            with suppress(OSError):
                self._paths.pop().rmdir()


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
    resolved = resolved_configs(system)
    roles = stage_roles(system, [*resolved, *configs])
    return {
        "schema": SCHEMA,
        "recipe_dir": str(recipe_dir),
        "system": f"{type(system).__module__}.{type(system).__qualname__}",
        "exp_dir": _exp_dir(system),
        "stages": [
            {
                "name": name,
                "log_dir": _log_dir(system, name),
                "configs": configs,
                "roles": roles.get(name),
            }
            for name in stages
        ],
        "paths": config_paths(system),
        "framework": _framework(),
        "resolved": resolved,
    }


def search_launcher_last(recipe_dir: Path) -> None:
    """Have the launcher's project searched for modules after all else, unless it is the recipe's.

    The folder that the probe itself was started from comes first, as it does in ``python run.py``.
    """
    for entry in list(sys.path[1:]):
        folder = Path(entry).resolve()
        if (folder / "launcher" / "probe.py").is_file() and folder not in recipe_dir.parents:
            sys.path.remove(entry)
            sys.path.append(entry)


def config_paths(system: Any) -> list[str]:
    """Return the absolute paths that stand in the system's ``*_config`` attributes, sorted.

    A config is a mapping, OmegaConf's or another; what it cannot resolve is passed over. Only the
    first :data:`MAX_CONFIG_VALUES` values are looked at, so that a config which holds itself ends.
    """
    names = sorted(name for name in dir(system) if name.endswith("_config"))
    waiting = deque(_each(names, lambda name: getattr(system, name)))
    found = set()
    for _ in range(MAX_CONFIG_VALUES):
        if not waiting:
            break
        value = waiting.popleft()
        if isinstance(value, (str, os.PathLike)):
            text = os.fspath(value)
            if isinstance(text, str) and _is_absolute_path(text):
                found.add(str(Path(text)))
        elif isinstance(value, Mapping):
            waiting.extend(_each(value, value.__getitem__))
        elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            waiting.extend(_each(range(len(value)), value.__getitem__))
    return sorted(found)


def resolved_configs(system: Any) -> dict[str, dict[str, Any]]:
    """Return what each ``*_config`` of the system comes to: dotted key to value, JSON-able.

    What cannot be resolved is passed over. Of each, only the first :data:`MAX_CONFIG_VALUES` values
    are looked at; the key ``…`` says that there are more.
    """
    names = sorted(name for name in dir(system) if name.endswith("_config"))
    masked = _masking()
    resolved = {}
    for name in names:
        for config in _each([name], lambda each: getattr(system, each)):
            if config is not None:
                resolved[name] = masked(_flattened(config))
    return resolved


def _masking() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what masks secrets, by the rules that lie beside the probe: none comes to a file."""
    path = Path(__file__).with_name(MASKING_RULES)
    spec = importlib.util.spec_from_file_location("launcher_masking_rules", path)
    if not path.is_file() or spec is None or spec.loader is None:
        return dict
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    mask: Callable[[dict[str, Any]], dict[str, Any]] = rules.mask_dotted
    return mask


def _flattened(config: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), config)])
    for _ in range(MAX_CONFIG_VALUES):
        if not waiting:
            return flat
        path, value = waiting.popleft()
        is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
        inner: list[tuple[tuple[str, ...], Any]] = []
        with suppress(Exception):  # as in _each
            keys = list(islice(range(len(value)) if is_list else value, MAX_CONFIG_VALUES))
            if (is_list or isinstance(value, Mapping)) and len(path) < _MAX_DEPTH:
                for key in keys:
                    inner += [((*path, str(key)), each) for each in _each([key], value.__getitem__)]
        if inner:
            waiting.extend(inner)
        else:
            flat[".".join(path)] = _plain(value)
    flat["…"] = "more than are compared"
    return flat


def _plain(value: Any) -> Any:
    """Return a value of a config as JSON has it; of a long text, its digest."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, (str, bytes, bytearray, os.PathLike)):
        raw = os.fsencode(value) if isinstance(value, os.PathLike) else value
        text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "backslashreplace")
        if len(text) <= _MAX_TEXT:
            return text
        return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return "[]" if isinstance(value, Sequence) else type(value).__qualname__


def stage_roles(system: Any, configs: Iterable[str]) -> dict[str, list[str]]:
    """Return the configs on which stages may depend, of those stages of which that can be told.

    The framework says which config a stage requires. It may look into that of any stage before as
    well (``infer`` into the training's), not into those of later ones; a config that no stage
    requires counts for all.
    """
    required = _required(system)
    named = [f"{role}_config" for roles in required.values() for role in roles]
    known: list[str] = [name for name in dict.fromkeys(configs) if name not in named]
    told = {}
    for stage, roles in required.items():
        known += [f"{role}_config" for role in roles]
        if not _is_overridden(system, stage):
            told[stage] = sorted(set(known))
    return told


def _required(system: Any) -> dict[str, list[str]]:
    """Return the roles that each stage of the framework requires, in canonical order."""
    required: dict[str, list[str]] = {}
    with suppress(Exception):
        for spec in getattr(system, "stages", ()):  # StageSpec of espnet 202611 and later
            required[str(spec.name)] = [str(spec.config).removesuffix("_config")]
    if required:
        return required
    own = sys.modules.get("espnet3.utils.run_utils")
    for table in ("REQUIRED_ROLES", "OPTIONAL_ROLES"):
        for stage, roles in getattr(own, table, {}).items():
            required.setdefault(str(stage), []).extend(map(str, roles))
    return required


def _is_overridden(system: Any, stage: str) -> bool:
    """Tell whether a recipe's own method stands where the framework's table means another."""
    has_specs = bool(getattr(system, "stages", ()))
    module = getattr(getattr(system, stage, None), "__module__", "") or ""
    return not has_specs and not module.startswith("espnet3.")


def _each(keys: Iterable[Any], value_of: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the value of each key, as far as there is one to be had."""
    with suppress(Exception):  # OmegaConf refuses the keys of a config that is missing or null
        for key in islice(keys, MAX_CONFIG_VALUES):
            with suppress(Exception):  # an interpolation that leads nowhere, a resolver's own error
                yield value_of(key)


def _is_absolute_path(text: str) -> bool:
    return (
        text.startswith("/") and len(text) <= _MAX_PATH_CHARACTERS and not {"\0", "\n"} & set(text)
    )


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


def _framework() -> str | None:
    package = sys.modules.get(SEAM_MODULE.partition(".")[0])
    folders = list(getattr(package, "__path__", ()))
    return str(Path(folders[0]).resolve().parent) if folders else None


def _exp_dir(system: Any) -> str | None:
    directory = getattr(system, "exp_dir", None)
    if directory is None:
        directory = getattr(getattr(system, "training_config", None), "exp_dir", None)
    return None if directory is None else str(Path(directory).resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
