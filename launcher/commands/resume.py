"""``python -m launcher resume``: run what failed, never ran, or does not hold any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.commands.arguments import AS_IT_WAS, LAUNCH, SETTING, add_recipe, add_submission

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from launcher.again.resume import Resumption
    from launcher.again.verdicts import Verdict
    from launcher.records import LaunchRecords

EXAMPLE = "resume mini_an4 --explain"
INSTEAD = AS_IT_WAS


def add_arguments(parser: ArgumentParser) -> None:
    """Add what may follow the command's name."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="LAUNCH or key=value",
        help=f"{LAUNCH}; {SETTING}",
    )
    add_recipe(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="only say of each stage whether it would run, and why",
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        metavar="STAGE",
        default=[],
        help="stages that are kept whatever has changed; they have to be done",
    )
    add_submission(parser)


def run(options: Namespace) -> int:
    """Resume the launch; return the exit status."""
    from launcher.again.resume import plan_resume
    from launcher.errors import UsageError, separated
    from launcher.launches import find_launch
    from launcher.processes.interrupts import orderly_end
    from launcher.recipe import current_dir

    if any("," in stage for stage in options.keep):
        raise UsageError(separated(["--keep", *options.keep]))
    words, settings = split_settings([*options.words, *options.keep])
    keep = [stage for stage in options.keep if stage in words]
    launches = words[: len(words) - len(keep)]
    if len(launches) > 1:
        raise UsageError(f"name one launch, not {', '.join(launches)}")
    asked = launches[0] if launches else None
    records = find_launch(asked, options.recipe, working_dir=current_dir())
    with orderly_end():
        resumption = plan_resume(records, keep=keep, settings=settings)
    command_line = ["resume", str(records.directory), *settings]
    return go_on(resumption, [*command_line, *(["--keep", *keep] if keep else [])], options)


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort the words of a command: return those that are no ``key=value``, and those that are."""
    settings = [word for word in words if "=" in word and "/" not in word.partition("=")[0]]
    return [word for word in words if word not in settings], settings


def go_on(resumption: Resumption, command_line: list[str], options: Namespace) -> int:
    """Say what becomes of each stage, and submit those that run; return the exit status."""
    from launcher.again.resume import successors
    from launcher.display.render import short_path
    from launcher.hand_over import hand_over, show_plan

    print(f"{command_line[0]} of {short_path(resumption.earlier.directory)}")
    if later := successors(resumption.earlier):
        print(f"  {short_path(later[-1].directory)} went on from it already")
    for line in verdict_lines(resumption.verdicts):
        print(line)
    if getattr(options, "explain", False):
        return 0
    if not resumption.runs:
        print("Nothing to do: every stage is done, and holds.")
        return 0
    if options.dry_run:
        return show_plan(resumption.prepared, queue=options.queue)
    return hand_over(
        resumption.prepared,
        resumption.request,
        command_line,
        follow=options.follow,
        continued=resumption.continued,
        queue=options.queue,
    )


def changed_lines(records: LaunchRecords) -> list[str]:
    """Return what has changed since: of what is done and does not hold, of what ended early."""
    from launcher.again.resume import explain
    from launcher.status import DONE

    verdicts = explain(records)
    done = [verdict for verdict in verdicts if verdict.status.state == DONE]
    lines = [
        f"{verdict.stage} does not hold any more: {reason}"
        for verdict in done
        for reason in verdict.reasons
    ] or [f"what is done still holds: {', '.join(each.stage for each in done) or '–'}"]
    lines += [
        f"{verdict.stage} {verdict.status.state}; since then changed: {change}"
        for verdict in verdicts
        for change in verdict.changes
    ]
    return lines + set_aside_lines(verdicts)


def set_aside_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Say of which stages that ended early the saved work may not be gone on from."""
    stages = [each.stage for each in verdicts if each.runs and each.has_other_config]
    if not stages:
        return []
    return [
        f"{', '.join(stages)} ran with another config: what was saved then may be put aside, and "
        "not gone on from. To go on from it, undo the change."
    ]


def verdict_lines(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Return a line for each stage: what becomes of it, and why; further reasons below."""
    from launcher.status import DONE

    width = max(len(verdict.stage) for verdict in verdicts)
    lines = []
    for verdict in verdicts:
        is_kept = verdict.status.state == DONE
        what = "runs" if verdict.runs else "kept" if is_kept else "left"
        reasons = [*verdict.reasons, *(f"since then changed: {each}" for each in verdict.changes)]
        if is_kept and not verdict.runs and reasons:
            reasons[0] = f"all the same: {reasons[0]}"
        first, *rest = reasons or [""]
        lines.append(f"  {verdict.stage:{width}}  {what}  {first}".rstrip())
        lines += [f"  {'':{width}}        {reason}" for reason in rest]
    again = [each.stage for each in verdicts if each.runs and each.status.state == DONE]
    if again and any(each.reasons != ("asked for",) for each in verdicts if each.runs):
        lines.append(f"To keep what is done all the same: --keep {' '.join(again)}")
    return lines + set_aside_lines(verdicts)
