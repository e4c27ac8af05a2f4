"""``python -m launcher image …``: build, push, pull, pin, verify and list images."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError, UsageError, did_you_mean
from launcher.images.source import available, containers_dir, load_source
from launcher.images.usage import FORMATS, HELP, parser

if TYPE_CHECKING:
    from argparse import Namespace

    from launcher.images.lock import LockEntry


def main(arguments: list[str]) -> int:
    """Run ``image …`` and return its exit status.

    Raises:
        UsageError: the command line makes no sense.
        ImageError: what was asked for cannot be done.
    """
    if not arguments or not {"-h", "--help"}.isdisjoint(arguments):
        print(HELP, end="")
        return 0 if arguments else UsageError.exit_status
    command, *rest = arguments
    if command not in _COMMANDS:
        raise UsageError(
            f"there is no command 'image {command}'.{did_you_mean(command, _COMMANDS)} "
            f"Commands: {', '.join(_COMMANDS)}."
        )
    options = parser(command).parse_args(rest)
    _complete(options)
    # What ends it (a job's end, a closed terminal) lets it remove what it has begun.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, _end)
    return _COMMANDS[command](options)


def _complete(options: Namespace) -> None:
    """Fill in what was not given from the person's own settings, as launches do."""
    from launcher.config import LaunchConfig, load_config, user_file
    from launcher.launch import image_cache
    from launcher.stage_images import images_lock

    settings = load_config({}, []) if user_file().is_file() else LaunchConfig()
    options.lock = options.lock.expanduser().absolute() if options.lock else images_lock(settings)
    options.cache = (
        options.cache.expanduser().absolute() if options.cache else image_cache(settings)
    )


def _build(options: Namespace) -> int:
    from launcher.images.build import build
    from launcher.images.engine import load_engine

    source = load_source(containers_dir(options.lock), options.name)
    engine = load_engine(options.engine)
    begun = time.monotonic()
    image = build(engine, source, base=options.base, pull=options.pull, say=_say)
    _print(
        f"built {source.name}: {image.image_id}, {_gigabytes(image.size_bytes)}, "
        f"{time.monotonic() - begun:.0f} s, by {engine.version()}\n"
        "To run stages in it, pin it; for other machines, push it first:\n"
        f"  python -m launcher image push {source.name} --to REGISTRY/REPOSITORY\n"
        f"  python -m launcher image pin {source.name}"
    )
    return 0


def _push(options: Namespace) -> int:
    from launcher.images.build import latest_build
    from launcher.images.engine import load_engine
    from launcher.images.reference import parse_reference

    to = parse_reference(options.to)
    if to.digest is not None:
        raise UsageError(f"--to {options.to}: an image is pushed to a repository, not to a digest")
    engine = load_engine(options.engine)
    image = latest_build(engine, options.name)
    # A registry wants a tag. This one says which image it is, and moves to no other one.
    tag = to.tag or image.image_id.partition(":")[2][:12]
    reference = f"{to.repository}:{tag}"
    is_new = engine.inspect(reference) is None
    engine.tag(image.image_id, reference)
    begun = time.monotonic()
    try:
        digest = engine.push(reference, _say)
    except ImageError:
        if is_new:  # or it would look as if it were there
            engine.remove(reference)
        raise
    known = {parse_reference(each).repository for each in image.repo_digests}
    # By its name alone it is pinned where it was pushed to before.
    which = f" {to.repository}@{digest}" if known - {to.repository} else ""
    _print(
        f"pushed {options.name}: {to.repository}@{digest}, {time.monotonic() - begun:.0f} s\n"
        "To pin it:\n"
        f"  python -m launcher image pin {options.name}{which}"
    )
    return 0


def _pin(options: Namespace) -> int:
    from launcher.images.lock import read_lock, update_lock
    from launcher.images.pinning import entry_for, with_checksums

    previous = read_lock(options.lock).get(options.name)
    repository = previous.repository if previous is not None else None
    entry = entry_for(options.name, options.reference, options.engine, _say, repository=repository)
    entry = with_checksums(
        options.name,
        entry,
        previous,
        [ImageFormat.SIF] * options.sif + [ImageFormat.SQSH] * options.sqsh,
        options.cache,
        _say,
    )
    update_lock(options.lock, options.name, entry)
    print(f"pinned {options.name}: {entry.pin(options.name).asked}\n  in {options.lock}")
    if entry.repository is None:
        _print(
            "It was never pushed: no other machine can fetch it. To share it:\n"
            f"  python -m launcher image push {options.name} --to REGISTRY/REPOSITORY\n"
            f"  python -m launcher image pin {options.name}"
        )
    return 0


def _pull(options: Namespace) -> int:
    from launcher.images.engine import load_engine
    from launcher.images.verify import (
        NamedRuntime,
        prepare_image,
        prepare_in_engine,
        resolve_pin,
    )

    pin = resolve_pin(options.name, options.lock, allow_unpinned=False)
    begun = time.monotonic()
    if options.runtime is None:
        image = prepare_in_engine(pin, load_engine(options.engine), say=_say)
    else:
        runtime = NamedRuntime(options.runtime, FORMATS[options.runtime])
        image = prepare_image(pin, runtime, options.cache, say=_say)
    print(f"{options.name}: {image.argument}\n  verified {image.verified}")
    if image.path is not None:
        size = _gigabytes(image.path.stat().st_size)
        print(f"  file     {image.file_sha256}, {size}")
    print(f"  {time.monotonic() - begun:.0f} s")
    return 0


def _verify(options: Namespace) -> int:
    from launcher.images.inventory import look_up

    entries = _entries(options)
    if not entries:
        print(f"nothing is pinned in {options.lock}")
    bad = 0
    for name, entry in entries.items():
        print(f"{name}  {entry.pin(name).asked}")
        found = look_up(entry.pin(name), options.engine, options.cache)
        for each in found:
            print(f"  {each.where:<8} {each.told}")
            bad += each.differs
        changed = _changed(name, entry, options.lock)
        if changed:
            print(f"  changed since it was built: {', '.join(changed)}")
            _print(f"    python -m launcher image build {name}")
    return 1 if bad else 0


def _list(options: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from launcher.images.inventory import presence
    from launcher.images.lock import read_lock

    entries = read_lock(options.lock)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "image", "built", "here", "inputs"):
        table.add_column(column, overflow="fold")
    for name, entry in entries.items():
        pin = entry.pin(name)
        here = presence(pin, options.engine, options.cache)
        changed = _changed(name, entry, options.lock)
        inputs = f"changed: {', '.join(changed)}" if changed else "unchanged" if pin.inputs else "–"
        table.add_row(name, _short(pin.asked), entry.built or "–", ", ".join(here) or "–", inputs)
    for name in available(containers_dir(options.lock)):
        if name not in entries:
            table.add_row(name, "not pinned", "–", "–", "–")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


def _entries(options: Namespace) -> dict[str, LockEntry]:
    """Return the entries of the lock file that were named, all of them when none was."""
    from launcher.images.lock import read_lock

    entries = read_lock(options.lock)
    for name in options.names:
        if name not in entries:
            known = ", ".join(entries) or "none"
            raise ImageError(
                f"there is no image '{name}' in {options.lock}.{did_you_mean(name, entries)} "
                f"Pinned there: {known}."
            )
    return {name: entries[name] for name in options.names or entries}


def _print(text: str) -> None:
    from launcher.typed import as_typed

    print(as_typed(text))


def _changed(name: str, entry: LockEntry, lock_file: Path) -> list[str]:
    from launcher.images.source import changed_inputs

    return changed_inputs(entry.pin(name), lock_file)


def _end(signum: int, frame: object) -> None:
    sys.exit(128 + signum)


def _say(line: str) -> None:
    print(line, flush=True)


def _short(reference: str) -> str:
    """Shorten a digest to what tells it from others at a glance."""
    head, _, digest = reference.rpartition("sha256:")
    return f"{head}sha256:{digest[:12]}…"


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "build": _build,
    "push": _push,
    "pin": _pin,
    "pull": _pull,
    "verify": _verify,
    "list": _list,
}
