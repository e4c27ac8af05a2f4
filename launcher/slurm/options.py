"""Options of sbatch and srun that a person gives, and what is not for a person to give.

Both take an abbreviation of an option for the option, so that names are checked for what they are
taken for, and not only for what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from launcher.errors import ConfigError
from launcher.masking import mask_arguments
from launcher.settings.resources import Resources

# Options of sbatch that settings of the launcher stand for, and those that nobody else may give.
_SETTINGS = {
    **{name: name for name in ("account", "constraint", "gres", "nodes", "partition", "qos")},
    "cpus-per-task": "cpus_per_task",
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"), "gpus_per_node"),
    "kill-on-invalid-dep": "kill_on_invalid_dep",
    "mem": "mem_gb",
    "no-requeue": "requeue",
    "requeue": "requeue",
    "signal": "signal_delay_s",
    "time": "timeout_min",
}
_OWN = (
    *("array", "chdir", "dependency", "error", "export", "export-file", "hold", "input"),
    *("job-name", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "quiet"),
    *("test-only", "wait", "wrap"),
)
# With these sbatch submits nothing, or to another cluster.
_NEVER = ("clusters", "help", "usage", "version")
# What srun is given by the launcher, or what would have it start something else, or elsewhere.
_OWN_OF_SRUN = (
    *("chdir", "clusters", "cpus-per-task", "error", "export", "help", "input", "job-name"),
    *("jobid", "kill-on-bad-exit", "multi-prog", "nodes", "ntasks", "ntasks-per-node"),
    *("open-mode", "output", "pty", "test-only", "unbuffered", "usage", "version"),
)
_NAME = re.compile(r"[a-z][a-z0-9-]*")


def option_name(given: str, value: Any, stage: str) -> str:
    """Return the long name of an option for sbatch.

    Raises:
        ConfigError: it can be no name, is another's to give, or is what sbatch would take for that.
    """
    name = given.replace("_", "-")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"sbatch.{given!r} cannot be the name of an option. Options of sbatch are given by "
            "their long names, without dashes before: cluster.sbatch.exclude=node7."
        )
    if meant := _reserved(name, _SETTINGS):
        setting = _SETTINGS[meant]
        raise ConfigError(
            f"sbatch.{given} has a setting of its own: stages.{stage}.{setting}=… "
            f"for one stage, {_section(setting)}.{setting}=… for all."
        )
    if meant := _reserved(name, _OWN):
        raise ConfigError(
            f"sbatch.{given} cannot be set: the launcher itself gives --{meant} to each job."
            if meant == name
            else f"sbatch.{given} cannot be set: sbatch takes it for --{meant}."
        )
    if meant := _reserved(name, _NEVER):
        raise ConfigError(f"sbatch.{given} cannot be set: no stage can be submitted with --{meant}")
    items = value if isinstance(value, list) else [value]
    if _hold_secret(f"--{name}={item}" for item in items):
        raise ConfigError(_secret_refused(f"sbatch.{given}"))
    return name


def check_srun_arguments(arguments: Sequence[str]) -> None:
    """Refuse what is the launcher's to give to srun, and secrets.

    Raises:
        ConfigError: there is such an argument.
    """
    for argument in map(str, arguments):
        name = argument.partition("=")[0]
        if argument.startswith("-") and not _NAME.fullmatch(name.removeprefix("--")):
            raise ConfigError(
                f"srun_args: '{name}': options of srun are given by their long names, such as "
                "--cpu-bind=none."
            )
        if name.startswith("--") and (meant := _reserved(name[2:], _OWN_OF_SRUN)):
            hint = " Variables of stages are set with env.NAME=…" if meant == "export" else ""
            raise ConfigError(
                f"srun_args: {name} cannot be set: --{meant} is the launcher's to give.{hint}"
            )
    if _hold_secret(map(str, arguments)):
        raise ConfigError(_secret_refused("srun_args"))


def _reserved(name: str, reserved: Iterable[str]) -> str | None:
    """Return the option that a name is, or that it abbreviates, as getopt_long(3) takes it."""
    matches = sorted(each for each in reserved if each.startswith(name))
    return matches[0] if matches else None


def _hold_secret(arguments: Iterable[str]) -> bool:
    """Tell whether there is a secret in arguments: ``--api-key=X``, ``--env=A,HF_TOKEN=X``."""
    given = [part for each in arguments for part in (each, *each.partition("=")[2].split(","))]
    return mask_arguments(given) != given


def _secret_refused(where: str) -> str:
    return (
        f"{where} looks as if it held a secret, and settings are written to the launch's files. "
        "Secrets are passed by name: put the variable into the launcher's environment, and list "
        "the name: secrets='[NAME]'."
    )


def _section(setting: str) -> str:
    return "resources" if setting in {each.name for each in fields(Resources)} else "cluster"
