"""Who writes to an experiment's folders: one launch at a time, or several, each after the others.

At submission, before anything is queued, a launch puts its name into the claim of every folder that
its stages write to. Nobody takes it out: a launch that has ended, as its own records and its
cluster tell, holds nothing any more, and the next one replaces it. So no kill leaves a folder
locked. A launch that is queued behind others stands after them.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.clusters.base import Cluster, ForegroundCluster, NamedCluster
from launcher.display.render import short_path
from launcher.errors import ClaimError, LauncherError, RecordError
from launcher.launch import Launch
from launcher.launches import cluster_and_grace, command_on
from launcher.launches.claim_files import (
    CLAIM,
    Holder,
    current_user,
    locked,
    make_writable,
    read,
    take_out,
    write,
)
from launcher.records import LaunchRecords
from launcher.status import JobStatus, chain_status


@dataclass(frozen=True)
class Standing:
    """What could be told of a launch that stands in a claim.

    Attributes:
        is_open: whether it may still write; True where that cannot be told.
        chain: its stages; empty where they cannot be told.
        cluster: that it was handed to.
        doubt: why nothing sure can be told of it.
    """

    is_open: bool
    chain: tuple[JobStatus, ...] = ()
    cluster: Cluster | None = None
    doubt: str = ""


def folders_of(launch: Launch) -> list[Path]:
    """Return the folders that the stages of a launch write to."""
    stages = {job.stage for job in launch.jobs}
    logs = [stage.log_dir for stage in launch.plan.stages if stage.name in stages]
    exp_dir = [launch.plan.exp_dir] if launch.plan.exp_dir else []
    return sorted({folder.resolve() for folder in [*exp_dir, *logs]})


def refusal(launch: Launch) -> str | None:
    """Say why a launch would be refused that does not queue; nothing is claimed."""
    try:
        for folder in folders_of(launch):
            for holder in read(folder):
                if (standing := _standing(holder)).is_open:
                    return _why_held(folder, holder, standing)
    except ClaimError as error:
        return str(error)
    return None


def claim(launch: Launch, cluster: Cluster, *, queue: bool) -> Launch:
    """Claim the folders of a launch whose directory has been made; return it as it may go on.

    Args:
        launch: what is about to be submitted.
        cluster: where.
        queue: whether it may be queued behind the launches that write there.

    Returns:
        The launch, whose first job waits for those that still write to one of its folders.

    Raises:
        ClaimError: another launch writes there, and this one is not to be queued, or cannot be.
        RecordError: a claim cannot be written.
    """
    own = Holder.of(launch)
    with ExitStack() as stack:
        folders = [each for each in folders_of(launch) if make_writable(each)]
        for folder in folders:  # in one order everywhere, so that two cannot wait for each other
            stack.enter_context(locked(folder))
        there = {folder: os.path.lexists(folder / CLAIM) for folder in folders}
        found = {folder: read(folder) for folder in folders}
        holders = {each.directory: each for held in found.values() for each in held}
        standings = {directory: _standing(holder) for directory, holder in holders.items()}
        still_open = {
            folder: [each for each in held if standings[each.directory].is_open]
            for folder, held in found.items()
        }
        for folder, held in still_open.items():
            for holder in held:
                if not queue:
                    raise ClaimError(_why_held(folder, holder, standings[holder.directory]))
                _check_queue(launch, cluster, folder, holder, standings[holder.directory])
        written: list[Path] = []
        try:
            for folder, held in still_open.items():
                write(folder, [*held, own], is_new=not there[folder])
                written.append(folder)
        except BaseException:
            for folder in written:
                take_out(folder, launch.directory)
            raise
    behind = dict.fromkeys(each.directory for held in still_open.values() for each in held)
    first, *rest = launch.jobs
    return replace(launch, jobs=(replace(first, behind=tuple(behind)), *rest))


def release(launch: Launch) -> None:
    """Take a launch, of which nothing was submitted, out of the claims that it stands in."""
    for folder in folders_of(launch):
        with suppress(LauncherError, OSError):
            if (folder / CLAIM).exists():
                with locked(folder):
                    take_out(folder, launch.directory)


def _standing(holder: Holder) -> Standing:
    directory, is_here = holder.directory, holder.host == socket.gethostname()
    records = LaunchRecords(directory)
    try:
        if not directory.is_dir():
            # Of another host's own disk nothing can be seen from here.
            if is_here or directory.parent.is_dir():
                return Standing(False)
            return Standing(True, doubt=f"{short_path(directory)} cannot be seen on this host")
        if not (directory / "launch.json").exists():
            return Standing(holder.launcher.is_alive())
        chain = chain_status(records)
        if all(status.has_ended for status in chain):
            return Standing(False)
        cluster, _ = cluster_and_grace(records)
        chain = chain_status(records, cluster)
        is_open = not all(status.has_ended for status in chain)
        return Standing(is_open, tuple(chain), cluster, _unasked(cluster) if is_open else "")
    except RecordError as error:
        return Standing(True, doubt=str(error))
    except OSError as error:  # another person's, as a rule
        return Standing(True, doubt=f"cannot look into {short_path(directory)}: {error.strerror}")


def _unasked(cluster: Cluster) -> str:
    try:
        if isinstance(cluster, NamedCluster):
            cluster.check_reach()
    except LauncherError as error:
        return str(error).rstrip(".")
    return ""


def _why_held(folder: Path, holder: Holder, standing: Standing) -> str:
    """Say which launch writes to a folder, how far it is, and what can be done."""
    who = "" if holder.user == current_user() else f" of {holder.user}'s"
    said = f"launch {short_path(holder.directory)}{who} writes to {folder}"
    left = [f"{each.stage} is {each.state}" for each in standing.chain if not each.has_ended]
    if standing.doubt:
        return (
            f"{said}, and whether it has ended cannot be told: {standing.doubt.rstrip('.')}. If it "
            f"has, remove {folder / CLAIM} and type the command once more."
        )
    is_said = f": {', '.join(left or ['it is being submitted'])}"
    return (
        f"{said}{is_said}. Wait until it has ended, have this one wait for it with --queue, "
        f"or end it: {command_on('cancel', LaunchRecords(holder.directory))}"
    )


def _check_queue(
    launch: Launch, cluster: Cluster, folder: Path, holder: Holder, standing: Standing
) -> None:
    """Refuse to queue behind a launch of which the end could not be awaited.

    Raises:
        ClaimError: it could not.
    """
    if isinstance(cluster, ForegroundCluster):
        raise ClaimError(
            f"cluster {cluster.name} does not queue. {_why_held(folder, holder, standing)}"
        )
    if standing.doubt:
        raise ClaimError(_why_held(folder, holder, standing))
    if not standing.chain:
        raise ClaimError(
            f"launch {short_path(holder.directory)} is just being submitted. Type the command once "
            "more."
        )
    there = standing.cluster.name if standing.cluster is not None else "?"
    if there != cluster.name:
        raise ClaimError(
            f"on {cluster.name} nothing can be queued behind a launch on {there}. "
            f"{_why_held(folder, holder, standing)}"
        )
