"""A launch as any later process sees it: its records, and its cluster where that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.errors import LauncherError, NoAnswer
from launcher.launches import cluster_and_grace
from launcher.status import chain_status
from launcher.view import LaunchView

if TYPE_CHECKING:
    from launcher.clusters.base import Cluster
    from launcher.records import LaunchRecords


def look(records: LaunchRecords) -> LaunchView:
    """Look at a launch; what its cluster cannot be asked is said, and told by the records alone.

    Raises:
        RecordError: its ``launch.json`` cannot be read.
    """
    cluster, unasked = cluster_to_ask(records)
    return LaunchView.of(records, cluster, unasked=unasked)


def cluster_to_ask(records: LaunchRecords) -> tuple[Cluster | None, str]:
    """Return the cluster of a launch, where it has something to add; and why it cannot be asked."""
    from launcher.clusters.base import NamedCluster

    if all(status.has_ended for status in chain_status(records)):
        return None, ""
    try:
        cluster, _ = cluster_and_grace(records)
    except LauncherError as error:  # damaged, or of a package that is not installed here
        return None, _on_record(error)
    if isinstance(cluster, NamedCluster):
        try:
            cluster.check_reach()
        except NoAnswer as error:  # asked for each stage, it may: those that lack it say so
            return cluster, _on_record(error)
        except LauncherError as error:
            return None, _on_record(error)
    return cluster, ""


def _on_record(error: LauncherError) -> str:
    return f"{str(error).rstrip('.')}. What follows is what is on record."
