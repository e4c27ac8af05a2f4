"""Checks of container runtimes and of the images that stages run in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from launcher import registry
from launcher.config import load_config
from launcher.containers.base import Container
from launcher.doctor.finding import FAIL, INFO, OK, WARN, Finding
from launcher.doctor.subject import Subject
from launcher.errors import ImageError


def runtime_checks(subject: Subject) -> list[Callable[[Subject], Iterator[Finding]]]:
    """Return a check for each runtime. Settings are read here: Hydra knows no threads."""
    checks: list[Callable[[Subject], Iterator[Finding]]] = []
    for name in registry.available("containers"):
        if name in ("auto", "none"):
            continue
        settings = subject.config.container
        if settings.name != name:
            loaded = load_config({"container": name}, [], recipe_dir=subject.recipe.directory)
            settings = loaded.container
        container = registry.load("containers", name).Implementation(settings)
        checks.append(partial(_runtime, name, container))
    return checks


def _runtime(name: str, container: Container, subject: Subject) -> Iterator[Finding]:
    problem = container.problem()
    if problem is None:
        yield Finding(name, OK, container.version())
    elif subject.config.container.name == name:
        is_slurm = subject.config.cluster.name == "slurm"
        advice = "nodes may have it all the same: --job tells" if is_slurm else ""
        yield Finding(name, WARN if is_slurm else FAIL, problem, advice)
    else:
        yield Finding(name, INFO, problem)


def images(subject: Subject, *, verify: bool = False) -> Iterator[Finding]:
    """Tell what is pinned, where it is, and whether it is what is pinned."""
    from launcher.images.inventory import look_up, presence
    from launcher.images.lock import read_lock
    from launcher.images.source import changed_inputs

    try:
        entries = read_lock(subject.images_lock)
    except ImageError as error:
        yield Finding("images", FAIL, str(error))
        return
    if not entries:
        advice = "python -m launcher image build cpu; then pin it: python -m launcher image pin cpu"
        yield Finding("images", INFO, f"nothing is pinned in {subject.images_lock}", advice)
    for name, entry in entries.items():
        pin = entry.pin(name)
        if changed := changed_inputs(pin, subject.images_lock):
            advice = (
                f"python -m launcher image build {name}; then pin it: "
                f"python -m launcher image pin {name}"
            )
            yield Finding("images", WARN, f"{name}: changed since: {', '.join(changed)}", advice)
        if verify:
            for each in look_up(pin, "auto", subject.image_cache):
                state = FAIL if each.differs else OK
                yield Finding("images", state, f"{name}: {each.where}: {each.told}")
            continue
        here = presence(pin, "auto", subject.image_cache)
        if here:
            advice = "" if changed else "--verify reads all of it"
            yield Finding("images", OK, f"{name}: pinned, and in {', '.join(here)}", advice)
        else:
            advice = f"python -m launcher image pull {name}"
            yield Finding("images", INFO, f"{name}: pinned, and not on this machine", advice)
