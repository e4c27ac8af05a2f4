"""Commands on launches that exist, one module each: ``python -m launcher status``.

A module has ``add_arguments``, which says to argparse what may follow its name, and ``run``, which
does it and returns the exit status. Nothing heavy is imported before ``run``. The same from Python:
``launcher.api``.
"""

from __future__ import annotations

# What may follow each, and what it is for, as ``--help`` says it, in that order.
COMMANDS = {
    "status": (
        "[LAUNCH] [--recipe DIR] [--explain]",
        "say what has become of a launch, the latest when none is named",
    ),
    "cancel": (
        "[LAUNCH] [--recipe DIR] [--force]",
        "stop the running stage, cancel the rest; --force kills what does not stop",
    ),
    "resume": (
        "[LAUNCH] [--recipe DIR] [--explain] [--keep STAGE …]\n"
        "[--follow] [--dry-run] [key=value …]",
        "run what failed, never ran, or does not hold any more; --explain says why",
    ),
    "rerun": (
        "STAGE [LAUNCH] [--downstream] [--recipe DIR]\n[--follow] [--dry-run] [key=value …]",
        "run one stage of a launch again; --downstream: those after it too",
    ),
    "reproduce": (
        "[LAUNCH] [--recipe DIR] [--anyway]\n[--follow] [--dry-run]",
        "launch again from the record alone; says what cannot be as it was",
    ),
}
