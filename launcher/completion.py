"""Completion of the command line in a shell: the script, and the words that it asks for.

The script hands the words so far to ``python -m launcher __complete WORD…``, the last one being
what is typed, and offers the lines that come back. Nothing heavy is imported for that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHELLS = ("bash", "zsh", "fish")
_BASH = """\
# Completion of `launcher` and `python -m launcher` for bash. In ~/.bashrc:
#   eval "$(launcher completion bash)"
_launcher_words() {
    local IFS=$'\\n'
    COMPREPLY=($("$@" 2>/dev/null))
}
_launcher() {
    _launcher_words "${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}"
}
_launcher_python() {
    if [ "${COMP_WORDS[*]:1:2}" = "-m launcher" ] && [ "$COMP_CWORD" -gt 2 ]; then
        _launcher_words "${COMP_WORDS[0]}" -m launcher __complete "${COMP_WORDS[@]:3:COMP_CWORD-2}"
    fi
}
complete -o default -F _launcher launcher
complete -o default -F _launcher_python python python3 .venv/bin/python
"""
_ZSH = """\
# Completion of `launcher` and `python -m launcher` for zsh. In ~/.zshrc, after compinit:
#   eval "$(launcher completion zsh)"
_launcher() {
    local -a offered
    offered=(${(f)"$("$words[1]" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    compadd -a offered || _files
}
_launcher_python() {
    if [[ $words[2] == -m && $words[3] == launcher && $CURRENT -gt 3 ]]; then
        local -a offered
        offered=(${(f)"$("$words[1]" -m launcher __complete "${(@)words[4,CURRENT]}" 2>/dev/null)"})
        compadd -a offered && return
    fi
    _files
}
compdef _launcher launcher
compdef _launcher_python python python3
"""
_FISH = """\
# Completion of `launcher` for fish. In ~/.config/fish/completions/launcher.fish:
#   launcher completion fish | source
function __launcher_words
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    $words[1] __complete $words[2..] (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command launcher --arguments '(__launcher_words)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_RUN_OPTIONS = (
    "--cluster",
    "--container",
    "--recipe",
    "--stages",
    "--follow",
    "--queue",
    "--dry-run",
    "--allow-unpinned",
    "--help",
)
_IMAGE_COMMANDS = ("build", "push", "pull", "pin", "verify", "list")
_MOST_LAUNCHES = 30


def offers(words: Sequence[str]) -> list[str]:
    """Return what may stand in place of the last word.

    Args:
        words: after the program's name; the last one is what has been typed of it, perhaps nothing.
    """
    *before, typed = words or [""]
    return sorted({each for each in _candidates(before, typed) if each.startswith(typed)})


def _candidates(before: Sequence[str], typed: str) -> Iterable[str]:
    from launcher.commands import COMMANDS

    command = before[0] if before and before[0] in (*COMMANDS, "image") else ""
    last = before[-1] if before else ""
    if last in ("--cluster", "--container"):
        return _names(last.removeprefix("--"))
    if last == "--recipe":
        return ()  # the shell's own completion of files
    if command == "image":
        return _IMAGE_COMMANDS if len(before) == 1 else ()
    if command == "completion":
        return SHELLS
    if command and typed.startswith("-"):
        usage = COMMANDS[command][0]
        return {word.strip("[]") for word in usage.split() if word.strip("[]").startswith("-")}
    if command:
        usage = COMMANDS[command][0]
        launches = _launches(before) if "LAUNCH" in usage else []
        stages = _stages(before, launches) if "STAGE" in usage else []
        return [*stages, *(path.name for path in launches)]
    if not before and not typed.startswith("-"):
        return ("run", *COMMANDS, "image")
    return _RUN_OPTIONS


def _names(group: str) -> list[str]:
    folder = Path(__file__).resolve().parent / "conf" / group
    return [path.stem for path in folder.glob("*.yaml")]


def _launches(before: Sequence[str]) -> list[Path]:
    """Return the latest launch directories below the folder that is likely meant, newest first."""
    start = Path.cwd()
    if "--recipe" in before[:-1]:
        start = start / before[list(before).index("--recipe") + 1]
    for folder in (start, *start.parents):
        try:
            with os.scandir(folder / ".launches") as entries:
                found = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
        except OSError:
            continue
        return sorted(found, reverse=True)[:_MOST_LAUNCHES]
    return []


def _stages(before: Sequence[str], launches: Sequence[Path]) -> list[str]:
    named = [path for path in launches if path.name in before]
    for path in [*named, *launches][:1]:
        from launcher.errors import LauncherError
        from launcher.records import LaunchRecords

        try:
            return [job["stage"] for job in LaunchRecords(path).read_launch()["jobs"]]
        except LauncherError:
            return []
    return []


def complete(words: Sequence[str]) -> int:
    """Print what may stand in place of the last word, a line each; return the exit status."""
    sys.stdout.writelines(f"{each}\n" for each in offers(words))
    return 0
