"""Commands on launches that exist, one module each: ``python -m launcher status``.

A module has ``USAGE``, what is typed after its name; ``add_arguments``, which says it to argparse;
and ``run``, which does it and returns the exit status. Nothing heavy is imported before ``run``.
The same from Python: ``launcher.api``.
"""

from __future__ import annotations

# What each is for, as ``--help`` says it, in that order.
COMMANDS = {
    "status": "say what has become of a launch, the latest when none is named",
    "cancel": "stop the running stage, cancel the rest; --force kills what does not stop",
}
