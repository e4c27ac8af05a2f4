"""What ``make run`` and ``make test`` call: the Makefile's variables become a command line.

They come through the environment and are split as a shell would split them, but no shell runs.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import MutableMapping

from launcher.errors import did_you_mean

_OPTIONS = ("CLUSTER", "CONTAINER", "RECIPE")
_VARIABLES = (*_OPTIONS, "STAGES", "ARGS")
_OTHER_VARIABLES = (
    *("ACCOUNTING", "PURGE", "REHEARSAL_DIR", "PYTHON312", "UPSTREAM_ENV", "NAME", "BASE"),
    "PYTHON",
)
# make's own, which would reach every stage and whatever make that calls.
_MAKE_VARIABLES = (
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "MAKE_TERMOUT",
    "MAKE_TERMERR",
)


def take_variables(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Take make's variables out of the environment, so that no stage inherits them."""
    for name in _MAKE_VARIABLES:
        environment.pop(name, None)
    return {name: environment.pop(name, "").strip() for name in _VARIABLES}


def launcher_arguments(variables: dict[str, str]) -> list[str]:
    """Return the launcher's command line.

    Raises:
        ValueError: a quote in STAGES or ARGS is not closed.
    """
    arguments = ["run", "--follow"]
    for name in _OPTIONS:
        if variables[name]:
            arguments += [f"--{name.lower()}", variables[name]]
    stages = _split("STAGES", variables)
    if stages:
        arguments += ["--stages", *stages]
    return arguments + _split("ARGS", variables)


def image_arguments(variables: dict[str, str], name: str, base: str) -> list[str]:
    """Return the launcher's command line for building an image.

    Raises:
        ValueError: a quote in ARGS is not closed.
    """
    arguments = ["image", "build", name]
    if base:
        arguments += ["--base", base]
    return arguments + _split("ARGS", variables)


def unknown_variable(name: str) -> str:
    """Return what to say of a variable that was given to make and that there is none of."""
    # `stages` is nearer to STAGES than its letters are.
    variables = (*_VARIABLES, *_OTHER_VARIABLES)
    hint = did_you_mean(name.upper(), variables)
    return (
        f"there is no variable {name}.{hint} Variables: {', '.join(variables)}. "
        f"One for the environment of the stages stands before make: {name}=… make …"
    )


def main(argv: list[str]) -> int:
    """Launch; with ``pytest`` as the argument, become pytest with ARGS; with ``image``, build one.

    With ``unknown-variables``, refuse those that UNKNOWN_VARIABLES names.
    """
    if argv == ["unknown-variables"]:
        for name in os.environ["UNKNOWN_VARIABLES"].split():
            print(f"make: {unknown_variable(name)}", file=sys.stderr)
        return 2
    variables = take_variables(os.environ)
    try:
        if argv == ["pytest"]:
            command = [sys.executable, "-m", "pytest", *_split("ARGS", variables)]
            os.execv(sys.executable, command)
        if argv == ["image"]:
            image = (os.environ.pop("IMAGE_NAME"), os.environ.pop("IMAGE_BASE"))
            arguments = image_arguments(variables, *image)
        else:
            arguments = launcher_arguments(variables)
    except ValueError as error:
        print(f"make: {error}", file=sys.stderr)
        return 2
    from launcher.cli import main as launch

    return launch(arguments)


def _split(name: str, variables: dict[str, str]) -> list[str]:
    try:
        return shlex.split(variables[name])
    except ValueError as error:
        raise ValueError(f"{name}={variables[name]} cannot be split into words: {error}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
