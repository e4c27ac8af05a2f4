"""All checks at once, each bounded in time: one that hangs costs no more than its own limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from launcher.doctor import machine, runtimes, slurm
from launcher.doctor.finding import FAIL, INFO, OK, WARN, Finding
from launcher.doctor.subject import Subject
from launcher.errors import LauncherError

CHECK_TIMEOUT_S = 45.0
_VERIFY_TIMEOUT_S = 1800.0

Check = Callable[[Subject], Iterator[Finding]]


def examine(subject: Subject, *, job: bool = False, verify: bool = False) -> list[Finding]:
    """Look at everything; the order is always the same.

    Args:
        subject: settings and folders.
        job: have a job on a node of SLURM say what it sees.
        verify: read all of each image, to see that it is the one that is pinned.
    """
    in_seconds: list[tuple[Check, float]] = [
        (machine.python, CHECK_TIMEOUT_S),
        *((check, CHECK_TIMEOUT_S) for check in runtimes.runtime_checks(subject)),
        (machine.gpus, CHECK_TIMEOUT_S),
        (slurm.reach, CHECK_TIMEOUT_S),
        (
            partial(runtimes.images, verify=verify),
            _VERIFY_TIMEOUT_S if verify else CHECK_TIMEOUT_S,
        ),
        (machine.room, CHECK_TIMEOUT_S),
        (machine.clock_and_locks, CHECK_TIMEOUT_S),
    ]
    if job:
        in_seconds.append((slurm.node, 2 * slurm.JOB_TIMEOUT_S))
    findings = run_checks(in_seconds, subject)
    if subject.config.container.name == "auto":
        findings.append(_auto(subject, findings))
    if subject.config.cluster.name == "slurm" and not job:
        found = "what nodes see was not looked at"
        findings.append(Finding("node", INFO, found, "have a job of seconds tell: doctor --job"))
    return findings


def run_checks(checks: Sequence[tuple[Check, float]], subject: Subject) -> list[Finding]:
    """Run checks at the same time; return what they find, in their order."""
    results: list[list[Finding]] = [[] for _ in checks]

    def run(number: int, check: Check) -> None:
        try:
            for finding in check(subject):
                results[number].append(finding)
        except (LauncherError, OSError, ValueError, KeyError, RuntimeError) as error:
            said = f"{type(error).__name__}: {error}"
            results[number].append(Finding(_name(check), FAIL, f"could not be looked at: {said}"))

    threads = [
        threading.Thread(target=run, args=(number, check), daemon=True)
        for number, (check, _) in enumerate(checks)
    ]
    begun_s = time.monotonic()
    for thread in threads:
        thread.start()
    findings: list[Finding] = []
    for number, (thread, (check, timeout_s)) in enumerate(zip(threads, checks, strict=True)):
        thread.join(max(begun_s + timeout_s - time.monotonic(), 0))
        findings += results[number]
        if thread.is_alive():
            found = f"no answer within {timeout_s:g} s"
            advice = "a file system or a daemon hangs: see dmesg"
            findings.append(Finding(_name(check), FAIL, found, advice))
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """Return how many of each there are, in a line."""
    numbers = {state: sum(each.state == state for each in findings) for state in (FAIL, WARN, OK)}
    return ", ".join(f"{number} {state}" for state, number in numbers.items())


def _auto(subject: Subject, findings: Sequence[Finding]) -> Finding:
    """Tell which runtime `container=auto` would take."""
    from launcher import registry

    cluster = registry.load("clusters", subject.config.cluster.name).Implementation
    works = {each.topic for each in findings if each.state == OK}
    for name in cluster.preferred_containers:
        if name in works:
            return Finding("container=auto", OK, f"stages would run in {name}")
    if cluster.falls_back_to_host:
        found = "no runtime works here: stages would run on this machine itself"
        return Finding("container=auto", WARN, found, "install Docker, Podman or Apptainer")
    found = "no runtime works here"
    return Finding("container=auto", WARN, found, "name the one that nodes have: --container NAME")


def _name(check: Check) -> str:
    words = check.args if isinstance(check, partial) and check.args else ()
    function = check.func if isinstance(check, partial) else check
    return str(words[0]) if words else function.__name__.strip("_").replace("_", " ")


def examine_recipe(
    recipe: str | None,
    *,
    working_dir: Path,
    cluster: str | None = None,
    container: str | None = None,
    job: bool = False,
    verify: bool = False,
) -> list[Finding]:
    """Examine what a launch of a recipe with these choices would need.

    Raises:
        LauncherError: there is no such recipe, cluster or container, or a setting is wrong.
    """
    subject = Subject.of(recipe, working_dir=working_dir, cluster=cluster, container=container)
    return examine(subject, job=job, verify=verify)
