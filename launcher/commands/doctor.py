"""``python -m launcher doctor``: whether launches can work from here, and what to do if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from launcher.doctor.finding import Finding

_STYLES = {"ok": "green", "info": "dim", "warn": "yellow", "fail": "bold red"}

EXAMPLE = "doctor --cluster slurm --container apptainer --job"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    from launcher.commands.arguments import add_recipe

    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="where jobs are to run: local, slurm or debug (default: as the settings have it)",
    )
    parser.add_argument(
        "--container",
        metavar="NAME",
        help="what stages are to run in: docker, podman, apptainer, enroot, charliecloud, none or "
        "auto (default: as the settings have it)",
    )
    add_recipe(parser)
    parser.add_argument(
        "--job", action="store_true", help="on SLURM, have a job of a second say what a node sees"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read all of each pinned image, and compare its checksum",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: Namespace) -> int:
    """Examine and report; return the exit status: 1 when something fails."""
    from launcher.doctor.examine import examine_recipe
    from launcher.recipe import current_dir

    findings = examine_recipe(
        options.recipe,
        working_dir=current_dir(),
        cluster=options.cluster,
        container=options.container,
        job=options.job,
        verify=options.verify,
    )
    if options.json:
        import json

        print(json.dumps([each.to_record() for each in findings], indent=2))
    else:
        show(findings)
    return 1 if any(each.state == "fail" for each in findings) else 0


def show(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, and what to do below it."""
    import textwrap

    from rich.console import Console
    from rich.text import Text

    from launcher.doctor.examine import summary
    from launcher.printable import harmless
    from launcher.typed import as_typed

    console = Console(highlight=False)
    width = min(console.width, 100) if console.is_terminal else 1000
    topic_width = max(len(each.topic) for each in findings)
    indent = " " * (4 + 2 + topic_width + 2)

    def wrapped(text: str, first: str = "") -> list[str]:
        text = " ".join(harmless(text).split())
        return textwrap.wrap(
            text,
            max(width - len(indent), 30),
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        )

    for each in findings:
        lines = wrapped(each.found)
        line = Text(f"{each.state:4}  ", style=_STYLES[each.state])
        line.append(f"{each.topic:{topic_width}}  ", style="not bold")
        line.append(lines[0] if lines else "", style="not bold")
        console.print(line, soft_wrap=True)
        for more in [*lines[1:], *wrapped(as_typed(each.advice), "→ ")]:
            console.print(Text(f"{indent}{more}"), soft_wrap=True)
    console.print(Text(summary(findings)), soft_wrap=True)
