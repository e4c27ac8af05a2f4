"""The command line: ``python -m launcher [run] …``, the commands on launches, and ``image …``.

Nothing heavy is imported here before it is known what is wanted: ``--help`` has to be instant on a
login node.
"""

from __future__ import annotations

import sys

from launcher.commands import COMMANDS
from launcher.errors import LauncherError, RecipeRefused, UsageError, did_you_mean, separated
from launcher.processes.streams import with_output
from launcher.usage import HELP, USAGE

TYPE_CHECKING = False  # not imported from typing, which takes as long as the rest
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from launcher.commands.arguments import Parser


_LIBRARIES = ("docker", "hydra", "omegaconf", "requests", "rich", "submitit", "yaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. A user's mistake is one message."""
    command_line = list(sys.argv[1:] if argv is None else argv)
    return with_output(lambda: _main(command_line))


def _main(command_line: list[str]) -> int:
    command = command_line[0] if command_line else ""
    if command == "__complete":  # of a shell, at each press of the tabulator
        from launcher.completion import complete

        return complete(command_line[1:])
    has_own_help = command == "image" or command in COMMANDS
    if not has_own_help and not {"-h", "--help"}.isdisjoint(command_line):
        print(HELP, end="")
        return 0
    try:
        if command == "image":
            from launcher.images.commands import main as image

            return image(command_line[1:])
        if command in COMMANDS:
            return _on_launch(command, command_line[1:])
        _refuse_unknown_command(command)
        return _run(command_line)
    except LauncherError as error:
        from launcher.printable import harmless
        from launcher.typed import as_typed

        print(f"launcher: {harmless(as_typed(str(error)))}", file=sys.stderr)
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


def run_parser() -> ArgumentParser:
    """Return the parser of ``run``, the command that is meant when none is named."""
    parser = _parser(f"{USAGE}\nType python -m launcher --help for what they mean.")
    parser.add_argument("--cluster")
    parser.add_argument("--container")
    parser.add_argument("--recipe")
    parser.add_argument("--stages", nargs="+")
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--queue", action="store_true")
    parser.add_argument("--dry-run", "--dry_run", action="store_true")
    parser.add_argument("--allow-unpinned", action="store_true")
    return parser


def command_parser(command: str) -> ArgumentParser:
    """Return the parser of a command on launches."""
    from importlib import import_module

    module = import_module(f"launcher.commands.{command}")
    usage, what_for = COMMANDS[command]
    indented = usage.replace("\n", f"\n{' ' * len('usage: python -m ')}")
    parser = _parser(f"python -m launcher {command} {indented}".rstrip())
    parser.description = f"{what_for}."
    parser.prog = f"{parser.prog} {command}"
    parser.epilog = f"example:\n  python -m launcher {module.EXAMPLE}"
    parser.instead = getattr(module, "INSTEAD", {})
    module.add_arguments(parser)
    parser.add_argument("-h", "--help", action="help", help="show this")
    return parser


def _parser(usage: str) -> Parser:
    from argparse import RawDescriptionHelpFormatter

    from launcher.commands.arguments import PROGRAM, Parser

    return Parser(
        prog=PROGRAM,
        usage=usage,
        formatter_class=RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )


def split_arguments(argv: Sequence[str]) -> tuple[Namespace, list[str], list[str]]:
    """Sort the command line into the launcher's options, its settings, and run.py's arguments.

    A bare ``key=value`` is a setting of the launcher, unless it follows an unknown flag directly:
    then it is that flag's value.
    """
    words = list(argv)
    if words[:1] == ["run"]:
        words.pop(0)
    options, rest = run_parser().parse_known_args(words)
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


def _refuse_unknown_command(word: str) -> None:
    """Refuse a first word that is nothing else: run.py of a recipe would only be puzzled by it."""
    if not word or word == "run" or word.startswith("-") or "=" in word:
        return
    known = ["run", *COMMANDS, "image"]
    raise UsageError(
        f"there is no command '{word}'.{did_you_mean(word, known)} Commands: {', '.join(known)}; "
        "run is meant when none is named. Stages follow --stages, a recipe follows --recipe."
    )


def _meant(passed_on: Sequence[str], refusal: str) -> str:
    """Name the launcher's own option that was meant by a flag which run.py does not know."""
    unknown = refusal.partition("unrecognized arguments:")[2].split()
    own = [name for name in run_parser()._option_string_actions if name.startswith("--")]
    for flag in dict.fromkeys(word.partition("=")[0] for word in passed_on if word in unknown):
        hint = did_you_mean(flag, own) if flag.startswith("--") else ""
        if hint:
            return f"\n{flag} is no option of the launcher either.{hint}"
        if flag.startswith("--"):
            name = flag[2:].replace("-", "_")
            return (
                f"\n{flag} is no option of the launcher either: type python -m launcher --help. "
                f"A setting of the cluster or of a stage is typed cluster.{name}=… or "
                f"stages.NAME.{name}=…"
            )
    return ""


def _run(command_line: list[str]) -> int:
    options, settings, passed_on = split_arguments(command_line)
    if options.stages and any("," in word for word in options.stages):
        stages = " ".join(options.stages)
        raise UsageError(f"--stages {stages}: {separated(['--stages', *options.stages])}")

    from launcher.again.request import LaunchRequest
    from launcher.hand_over import hand_over, show_plan
    from launcher.prepare import prepare
    from launcher.processes.interrupts import orderly_end
    from launcher.recipe import current_dir

    working_dir = current_dir()
    try:
        with orderly_end():
            prepared = prepare(options, settings, passed_on, working_dir=working_dir)
    except RecipeRefused as error:
        meant = _meant(passed_on, str(error))
        raise RecipeRefused(f"{error}{meant}", exit_status=error.exit_status) from error
    if options.dry_run:
        return show_plan(prepared, queue=options.queue)
    request = LaunchRequest.of(prepared.launch, settings, passed_on, working_dir=working_dir)
    return hand_over(prepared, request, command_line, follow=options.follow, queue=options.queue)


def _on_launch(command: str, arguments: list[str]) -> int:
    from importlib import import_module

    module = import_module(f"launcher.commands.{command}")
    is_split = getattr(module, "TAKES_COMMAND", False) and "--" in arguments
    end = arguments.index("--") if is_split else len(arguments)
    # Words before and after an option are one list (`resume LAUNCH --follow key=value`).
    options = command_parser(command).parse_intermixed_args(arguments[:end])
    options.command = arguments[end + 1 :]
    return int(module.run(options))
