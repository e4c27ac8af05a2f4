"""What ``--dry-run`` prints: every command of a launch, exact but for secrets, and readable."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from launcher.masking import mask_arguments, mask_environment

if TYPE_CHECKING:
    from launcher.launch import Job, Launch

_WIDTH = 88
_LABEL = 11


def describe(launch: Launch) -> str:
    """Return what a launch would do. Commands can be typed into a shell; secrets are masked."""
    lines = [
        f"recipe   {launch.recipe.directory}",
        f"system   {launch.plan.system}",
        f"cluster  {launch.config.cluster.name}, container {launch.config.container.name}",
    ]
    for job in launch.jobs:
        additions = [
            [f"{name}={value}"] for name, value in mask_environment(job.environment).items()
        ]
        lines += [
            "",
            f"{job.stage}" + (f", after {job.after}" if job.after else ""),
            _labelled("cd", _wrapped([[str(job.working_dir)]])),
            _labelled("env", _wrapped(additions)),
            _labelled("command", _command(job)),
            f"  log      {job.output.with_suffix('.log')}",
            f"  output   {job.output}",
        ]
    return "\n".join(lines)


def _command(job: Job) -> list[str]:
    """Return the lines of what the job starts; the stage's own command begins a line."""
    start = len(job.host_command) - len(job.stage_command)
    wrapper, inner = job.host_command[:start], job.host_command[start:]
    if not wrapper or inner != job.stage_command:
        return _wrapped(_groups(mask_arguments(job.host_command)))
    return [*_wrapped(_groups(wrapper)), *_wrapped(_groups(mask_arguments(inner)))]


def _groups(words: Sequence[str]) -> list[list[str]]:
    """Keep a flag and its values together."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups or not groups[-1][0].startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _wrapped(groups: Iterable[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    for text in map(shlex.join, groups):
        if lines and _LABEL + len(lines[-1]) + 1 + len(text) + 2 <= _WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _labelled(label: str, lines: Sequence[str]) -> str:
    """Join lines with what tells a shell that a command goes on."""
    return f"  {label:{_LABEL - 2}}" + f" \\\n{' ' * _LABEL}".join(lines)
