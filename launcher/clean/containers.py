"""Containers that outlived their stage, in the stores of Docker and Podman on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from launcher import registry
from launcher.clean.launches import open_because
from launcher.clean.leftover import Leftover
from launcher.config import load_config
from launcher.containers.base import FoundContainer, LabelledContainers
from launcher.errors import LauncherError
from launcher.launch import DIRECTORY_LABEL, LAUNCH_LABEL, SHELL_LABEL, STAGE_LABEL, container_name
from launcher.processes.identity import ProcessId
from launcher.records import LaunchRecords
from launcher.status import chain_status


def orphans(folder: Path, recipe_dir: Path | None) -> tuple[list[Leftover], list[str]]:
    """Return the containers of this user that nobody stands over; and what could not be asked.

    Args:
        folder: of launch directories; it tells whose the containers of older launches are.
        recipe_dir: its settings say how a runtime is called.
    """
    found: list[Leftover] = []
    unasked: list[str] = []
    for name in registry.available("containers"):
        implementation = getattr(registry.load("containers", name), "Implementation", None)
        if implementation is None or not issubclass(implementation, LabelledContainers):
            continue
        settings = load_config({"container": name}, [], recipe_dir=recipe_dir).container
        try:
            containers = implementation(settings).labelled(LAUNCH_LABEL)
        except LauncherError as error:
            unasked.append(f"{name} cannot be asked for containers: {error}")
            continue
        for each in containers:
            why = why_orphaned(each, folder, os.getuid(), stage_has_ended)
            if why:
                found.append(Leftover("container", each.name, why, runtime=settings))
    return found, unasked


def why_orphaned(
    container: FoundContainer, folder: Path, uid: int, has_ended: Callable[[Path, str], bool]
) -> str:
    """Say why a container is left over; empty when it is not, or when that cannot be told.

    Args:
        container: with the launcher's labels.
        folder: of launch directories.
        uid: the user; containers of others are none of theirs.
        has_ended: tells whether a stage of the launch in a directory has ended.
    """
    labels = container.labels
    if container.uid not in (None, uid):
        return ""
    if SHELL_LABEL in labels:
        holder = _process(labels[SHELL_LABEL])
        return "the shell that it was for is closed" if holder and not holder.is_alive() else ""
    stage = labels.get(STAGE_LABEL, "")
    directory = _directory(labels, container.name, folder)
    if directory is None or not directory.parent.is_dir():  # its file system may be away
        return ""
    if not directory.is_dir():
        return "its launch directory is gone"
    return f"{stage} has ended" if has_ended(directory, stage) else ""


def stage_has_ended(directory: Path, stage: str) -> bool:
    """Tell whether a stage has ended; a launch of which nothing can be told has not."""
    try:
        for each in chain_status(LaunchRecords(directory)):
            if each.stage == stage and each.has_ended:
                return True
    except LauncherError:
        return False
    return not open_because(directory)


def _directory(labels: Mapping[str, str], name: str, folder: Path) -> Path | None:
    if DIRECTORY_LABEL in labels:
        return Path(labels[DIRECTORY_LABEL])
    # Of an older launcher: its name has a digest of the directory's.
    candidate = folder / labels.get(LAUNCH_LABEL, "")
    expected = container_name(candidate, labels.get(STAGE_LABEL, ""))
    return candidate if name.startswith(expected) else None


def _process(text: str) -> ProcessId | None:
    try:
        return ProcessId.from_record(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return None
