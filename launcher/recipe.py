"""The recipe to launch, and the arguments that its ``run.py`` gets."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import UsageError

_FRAMEWORK = re.compile(rb"\b(espnet3|egs3)\b")
DEFAULT_RECIPE = Path("egs3/mini_an4/asr")
# Each standard config and the flags that name it: today's, and older ones of ESPnet3.
STANDARD_CONFIGS = {
    "training": ("--training_config", "--train_config"),
    "inference": ("--inference_config", "--infer_config"),
    "metrics": ("--metrics_config", "--metric_config"),
}
_STAGES_ABBREVIATED = {"--st", "--sta", "--stag", "--stage"}
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(frozen=True)
class Recipe:
    """A folder with a ``run.py``, and the top of the code that it belongs to."""

    directory: Path
    code_root: Path

    @property
    def label(self) -> str:
        """Short name for people: ``mini_an4/asr`` for ``…/egs3/mini_an4/asr``."""
        return "/".join(part for part in self.directory.parts[-2:] if part != os.sep)

    @property
    def code_roots(self) -> list[Path]:
        """Trees that hold the code: the recipe's, and this project's where it is a checkout."""
        project = project_root()
        is_checkout = (project / "pyproject.toml").exists()
        return list(dict.fromkeys([self.code_root, *([project] if is_checkout else [])]))

    @property
    def python_path(self) -> list[Path]:
        """Folders from which the recipe may import besides its own and what is installed."""
        # PYTHONPATH cannot express a folder with its separator in the name. The recipe's own
        # folder is importable without it: run.py is in there.
        return [folder for folder in self.code_roots if os.pathsep not in str(folder)]

    def environment(self, *, inherit: bool = True, framework: Path | None = None) -> dict[str, str]:
        """Return what the probe and the stages need in their environment.

        Args:
            inherit: whether the folders in the launcher's own ``PYTHONPATH`` are searched as well.
            framework: the folder from which the recipe imports ``espnet3``, as the probe found. If
                that is not this project, it must not be hidden by it.
        """
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep) if inherit else []
        paths = [*map(str, self.python_path), *filter(None, inherited)]
        project = project_root()
        if framework is not None and framework != project and self.code_root != project:
            paths = [path for path in paths if Path(path).resolve() != project]
        # Unbuffered, so that the raw output shows what happened before a crash. An empty path is
        # there to hide one that the job itself has for the launcher.
        return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def project_root() -> Path:
    """Return the folder that holds the ``launcher`` package."""
    return Path(__file__).resolve().parent.parent


def find_recipe(asked: str | None, *, working_dir: Path) -> Recipe:
    """Return the recipe asked for, else the working directory's, else the project's default.

    Raises:
        UsageError: there is no ``run.py`` there.
    """
    try:
        if asked is not None:
            directory = working_dir / Path(asked).expanduser()
        elif (working_dir / "run.py").is_file():
            directory = working_dir
        else:
            directory = project_root() / DEFAULT_RECIPE
        directory = directory.resolve()
        if directory.name == "run.py" and directory.is_file():
            directory = directory.parent
        if (directory / "run.py").is_file():
            return Recipe(directory, _code_root(directory))
        what = "no run.py in it" if directory.is_dir() else "no such folder"
    except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody, a loop of links
        directory, what = Path(asked or working_dir), getattr(error, "strerror", None) or str(error)
    raise UsageError(
        f"{directory} is not a recipe: {what}. "
        "Give the folder of a recipe with --recipe DIR, or change into one."
    )


def check_framework(recipe: Recipe) -> None:
    """See that a recipe is one of the stage framework before its ``run.py`` is asked for its plan.

    Any other script would not tell a plan: it would do its work, here and now.

    Raises:
        UsageError: neither ``run.py`` nor a module beside it mentions the framework.
    """
    folder = recipe.directory
    files = [folder / "run.py", *folder.glob("*.py"), *folder.glob("src/*.py")]
    for file in dict.fromkeys(files):
        with suppress(OSError):
            if _FRAMEWORK.search(file.read_bytes()):
                return
    raise UsageError(
        f"{folder / 'run.py'} does not use the stage framework: neither it nor a module beside it "
        "imports espnet3 or egs3. The launcher would run it to learn its stages, and it would do "
        "its work instead. docs/adding-a-recipe.md shows what a recipe looks like."
    )


def current_dir() -> Path:
    """Return the working directory.

    Raises:
        UsageError: it was deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError(
            f"the working directory, {os.environ.get('PWD', 'unknown')}, was deleted. "
            "Change into one that is there."
        ) from None


def recipe_arguments(given: Sequence[str], recipe: Recipe, *, working_dir: Path) -> list[str]:
    """Return the arguments for ``run.py``, which runs in the recipe's folder.

    Each of the standard configs that was not given is the recipe's own, where it has one. They come
    first: what was given in a way that is not seen here (an abbreviated flag) still has the last
    word. A relative path that exists in the working directory is passed as an absolute one.

    Raises:
        UsageError: ``--stages`` is abbreviated, which run.py would take, of each job, for its own.
    """
    defaults: list[str] = []
    flags_given = {argument.partition("=")[0] for argument in given}
    for flag in flags_given & _STAGES_ABBREVIATED:
        raise UsageError(
            f"{flag} is short for --stages, and each job would run all of them. "
            "Write it out: --stages STAGE …"
        )
    for role, flags in STANDARD_CONFIGS.items():
        config = f"conf/{role}.yaml"
        if flags_given.isdisjoint(flags) and (recipe.directory / config).is_file():
            defaults += [flags[0], config]
    return [*defaults, *(_absolute(argument, recipe, working_dir) for argument in given)]


def _absolute(argument: str, recipe: Recipe, working_dir: Path) -> str:
    flag, equals, value = (
        argument.partition("=") if argument.startswith("-") else ("", "", argument)
    )
    # A bare word such as a stage name is no path, even where a file has that name.
    looks_like_path = "/" in value or value.endswith((".yaml", ".yml"))
    if looks_like_path and working_dir != recipe.directory and (working_dir / value).exists():
        value = os.path.normpath(working_dir / value)
    return f"{flag}{equals}{value}"


def _code_root(directory: Path) -> Path:
    """Return the git top level, else the nearest folder with a project file, else the recipe."""
    folders = [directory, *directory.parents]
    for folder in folders:
        if (folder / ".git").exists():
            return folder
    for folder in folders:
        if any((folder / name).is_file() for name in _PROJECT_FILES):
            return folder
    return directory


def default_python() -> str:
    """Return the interpreter that runs the launcher, as it was called (a venv's stays one)."""
    return sys.executable
