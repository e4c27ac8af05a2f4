"""Commands on launches that exist, one module each: ``python -m launcher status``.

A module has ``add_arguments``, which says to argparse what may follow its name, an ``EXAMPLE`` for
its help, and ``run``, which does it and returns the exit status. Nothing heavy is imported before
``run``. The same from Python: ``launcher.api``.
"""

from __future__ import annotations

# What may follow each, and what it is for, as ``--help`` says it, in that order.
COMMANDS = {
    "status": (
        "[LAUNCH] [--recipe DIR] [--watch] [--json] [--explain]",
        "say what has become of a launch, the latest when none is named",
    ),
    "list": (
        "[--recipe DIR] [--json]",
        "list the launches of a recipe, the latest last",
    ),
    "logs": (
        "[LAUNCH] [STAGE …] [-f] [-n LINES] [--log] [--recipe DIR]",
        "print what a stage has printed; -f goes on until it ends",
    ),
    "wait": (
        "[LAUNCH] [--timeout-min MINUTES] [--quiet] [--recipe DIR]",
        "wait for the end; exit status 0 when every stage is done",
    ),
    "attach": (
        "[LAUNCH] [--recipe DIR]",
        "show progress, as --follow does; Ctrl-C leaves the launch to itself",
    ),
    "cancel": (
        "[LAUNCH] [STAGE …] [--recipe DIR] [--force]",
        "stop what runs, or a stage and all after it; --force kills",
    ),
    "resume": (
        "[LAUNCH] [--recipe DIR] [--explain] [--keep STAGE …]\n"
        "[--follow] [--queue] [--dry-run] [key=value …]",
        "run what failed, never ran, or does not hold any more; --explain says why",
    ),
    "rerun": (
        "STAGE [LAUNCH] [--downstream] [--recipe DIR]\n"
        "[--follow] [--queue] [--dry-run] [key=value …]",
        "run one stage of a launch again; --downstream: those after it too",
    ),
    "reproduce": (
        "[LAUNCH] [--recipe DIR] [--anyway]\n[--follow] [--queue] [--dry-run]",
        "launch again from the record alone; says what cannot be as it was",
    ),
    "report": (
        "[LAUNCH] [--recipe DIR] [--output FILE]",
        "write a launch as one HTML file: timeline, figures, curves, what was used",
    ),
    "shell": (
        "STAGE [LAUNCH] [--recipe DIR] [--dry-run] [-- COMMAND …]",
        "a shell, or a command, in the image, mounts, environment and GPUs of a stage",
    ),
    "clean": (
        "[--older-than 30d] [--keep N] [--recipe DIR]\n[--yes] [--dry-run]",
        "remove old launch directories and what killed jobs have left",
    ),
    "doctor": (
        "[--cluster NAME] [--container NAME] [--recipe DIR]\n[--job] [--verify] [--json]",
        "say whether launches can work from here, and what to do if not",
    ),
    "completion": (
        "bash|zsh|fish",
        "print what makes that shell complete this command line",
    ),
}
