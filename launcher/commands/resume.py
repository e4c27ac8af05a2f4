"""``python -m launcher resume``: run what failed, never ran, or does not hold any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from launcher.resume import Resumption, Verdict


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument("launch", nargs="?", metavar="LAUNCH")
    parser.add_argument("--recipe", metavar="DIR")
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--keep", nargs="+", metavar="STAGE", default=[])
    parser.add_argument("--dry-run", "--dry_run", action="store_true")
    parser.add_argument("--follow", action="store_true")


def run(options: Namespace) -> int:
    """Resume the launch; return the exit status."""
    from launcher.interrupts import orderly_end
    from launcher.launches import find_launch
    from launcher.recipe import current_dir
    from launcher.resume import plan_resume

    records = find_launch(options.launch, options.recipe, working_dir=current_dir())
    with orderly_end():
        resumption = plan_resume(records, keep=options.keep)
    command_line = ["resume", str(records.directory)]
    command_line += ["--keep", *options.keep] if options.keep else []
    return go_on(resumption, command_line, options)


def go_on(resumption: Resumption, command_line: list[str], options: Namespace) -> int:
    """Say what becomes of each stage, and submit those that run; return the exit status."""
    from launcher.hand_over import hand_over, show_plan
    from launcher.render import short_path

    print(f"{command_line[0]} of {short_path(resumption.earlier.directory)}")
    for line in verdict_lines(resumption.verdicts):
        print(line)
    if getattr(options, "explain", False):
        return 0
    if not resumption.runs:
        print("Nothing to do: every stage is done, and holds.")
        return 0
    if options.dry_run:
        return show_plan(resumption.prepared)
    return hand_over(
        resumption.prepared,
        resumption.request,
        command_line,
        follow=options.follow,
        continued=resumption.continued,
    )


def verdict_lines(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Return a line for each stage: what becomes of it, and why; further reasons below."""
    from launcher.status import DONE

    width = max(len(verdict.stage) for verdict in verdicts)
    lines = []
    for verdict in verdicts:
        is_kept = verdict.status.state == DONE
        what = "runs" if verdict.runs else "kept" if is_kept else "left"
        reasons = list(verdict.reasons)
        if is_kept and not verdict.runs and reasons:
            reasons[0] = f"all the same: {reasons[0]}"
        first, *rest = reasons or [""]
        lines.append(f"  {verdict.stage:{width}}  {what}  {first}".rstrip())
        lines += [f"  {'':{width}}        {reason}" for reason in rest]
    again = [each.stage for each in verdicts if each.runs and each.status.state == DONE]
    if again and any(each.reasons != ("asked for",) for each in verdicts if each.runs):
        lines.append(f"To keep what is done all the same: --keep {' '.join(again)}")
    return lines
