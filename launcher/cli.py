"""The command line: ``python -m launcher [run] …``.

Nothing heavy is imported here before it is known what is wanted: ``--help`` has to be instant on a
login node.
"""

from __future__ import annotations

import argparse
import os
import sys

from launcher.errors import LauncherError

TYPE_CHECKING = False  # not imported from typing, which takes as long as the rest
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.launch import Launch

_LIBRARIES = ("hydra", "omegaconf", "rich", "submitit")
_DESCRIPTION = "Submit each stage of a recipe as its own job, in canonical order."
_EPILOG = """\
Other flags go to the recipe's run.py. key=value changes a setting of launcher/conf.
With no --*_config flag, the recipe's conf/training.yaml, inference.yaml and metrics.yaml
are passed to it where they exist.

examples:
  python -m launcher --stages train infer --follow
  python -m launcher --recipe egs3/fsdd/asr --training_config conf/training.yaml --dry-run

Without --follow the command returns once all jobs are submitted, and they go on by themselves.
With --follow, Ctrl-C cancels the launch."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. A user's mistake is one message."""
    command_line = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(command_line)
    except LauncherError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        print(
            f"launcher: {sys.executable} lacks {error.name}. Type `make env` and use "
            ".venv/bin/python, or install the project: python -m pip install -e .",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``run``, the command that is meant when none is named."""
    parser = argparse.ArgumentParser(
        prog="python -m launcher",
        usage="%(prog)s [run] [options] [flags of run.py] [key=value …]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_help_formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--cluster", metavar="NAME", help="where jobs run (default: local)")
    parser.add_argument(
        "--container", metavar="NAME", help="what stages run in (default: none, the host itself)"
    )
    parser.add_argument(
        "--recipe",
        metavar="DIR",
        help="folder with a run.py (default: the working directory if it has one, else the "
        "project's default recipe)",
    )
    parser.add_argument(
        "--stages", nargs="+", metavar="STAGE", help="as for run.py (default: the recipe's)"
    )
    parser.add_argument(
        "--follow", action="store_true", help="stay, show progress, end with a table of results"
    )
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="show what would be submitted; create and submit nothing",
    )
    return parser


def _help_formatter(prog: str) -> argparse.HelpFormatter:
    # With the width given, argparse does not import shutil for it: 6 ms of some 40.
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        width = 80
    return argparse.RawDescriptionHelpFormatter(prog, width=min(width, 100) - 2)


def split_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Sort the command line into the launcher's options, its settings, and run.py's arguments.

    A bare ``key=value`` is a setting of the launcher, unless it follows an unknown flag directly:
    then it is that flag's value.
    """
    words = list(argv)
    if words[:1] == ["run"]:
        words.pop(0)
    options, rest = build_parser().parse_known_args(words)
    # `--stages train stop_grace_s=3`: the list of stages ends where settings begin.
    settings = [word for word in options.stages or () if "=" in word]
    if settings:
        options.stages = [word for word in options.stages if "=" not in word]
    passed_on: list[str] = []
    after_flag = False
    for word in rest:
        is_flag = word.startswith("-")
        if "=" in word and not is_flag and not after_flag:
            settings.append(word)
        else:
            passed_on.append(word)
        after_flag = is_flag and "=" not in word
    return options, settings, passed_on


def _run(command_line: list[str]) -> int:
    options, settings, passed_on = split_arguments(command_line)

    from pathlib import Path

    from launcher import registry
    from launcher.config import load_config
    from launcher.launch import build_launch, submit
    from launcher.plan import probe_plan
    from launcher.recipe import find_recipe, recipe_arguments

    working_dir = Path.cwd()
    recipe = find_recipe(options.recipe, working_dir=working_dir)
    choices = {"cluster": options.cluster, "container": options.container}
    config = load_config(choices, settings, recipe_dir=recipe.directory)
    cluster = registry.load("clusters", config.cluster.name).Implementation(config.cluster)
    container = registry.load("containers", config.container.name).Implementation(config.container)
    arguments = recipe_arguments(passed_on, recipe, working_dir=working_dir)
    stages = ["--stages", *options.stages] if options.stages else []
    plan = probe_plan(recipe, container.interpreter, [*stages, *arguments])
    launch = build_launch(recipe, plan, config, container, arguments)
    if options.dry_run:
        print(describe(launch))
        return 0
    records = submit(
        launch, cluster, command_line=[sys.executable, "-m", "launcher", *command_line]
    )
    from launcher.render import short_path

    print(f"launch {short_path(records.directory)}")
    if not options.follow:
        from launcher.status import job_status

        for job in launch.jobs:
            after = f"  after {job.after}" if job.after else ""
            print(f"  {job.stage:16} job {job_status(records, job.stage).job_id}{after}")
        return 0
    from launcher.follow import follow

    return follow(records, cluster)


def describe(launch: Launch) -> str:
    """Return what a launch would do, as ``--dry-run`` prints it."""
    import shlex

    lines = [
        f"recipe   {launch.recipe.directory}",
        f"system   {launch.plan.system}",
        f"cluster  {launch.config.cluster.name}, container {launch.config.container.name}",
    ]
    for job in launch.jobs:
        additions = [shlex.quote(f"{name}={value}") for name, value in job.environment.items()]
        lines += [
            "",
            f"{job.stage}" + (f", after {job.after}" if job.after else ""),
            f"  cd       {shlex.quote(str(job.working_dir))}",
            f"  env      {' '.join(additions)}",
            f"  command  {shlex.join(job.stage_command)}",
            f"  starts   {shlex.join(job.host_command)}",
            f"  log      {job.output.with_suffix('.log')}",
            f"  output   {job.output}",
        ]
    return "\n".join(lines)
