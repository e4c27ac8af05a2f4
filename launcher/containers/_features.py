"""Whether a runtime has what a stage asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from launcher import registry
from launcher.containers.base import Container, ContainerRun, Feature, ImageFormat
from launcher.errors import ConfigError

_NOT_PLAIN = re.compile(r"[:\\\s]")


def asked_features(run: ContainerRun) -> dict[Feature, str]:
    """Return what a container asks for that not every runtime has, and in what it asks for it.

    The size of shared memory is not among it: one is always given.
    """
    odd = [str(mount.target) for mount in run.mounts if _NOT_PLAIN.search(str(mount.target))]
    asked = {
        Feature.GPUS: ", ".join(run.gpus),
        Feature.MEMORY_LIMIT: "" if run.mem_gb is None else f"{run.mem_gb:g} GiB",
        Feature.CPU_LIMIT: "" if run.cpus is None else str(run.cpus),
        Feature.ANY_PATH: odd[0] if odd else "",
        Feature.MULTI_NODE: str(run.num_nodes) if run.num_nodes > 1 else "",
        Feature.TERMINAL: "yes" if run.terminal else "",
    }
    return {feature: what for feature, what in asked.items() if what}


def check_features(container: Container, asked: Mapping[Feature, str]) -> None:
    """Refuse what a runtime does not have.

    Args:
        container: the runtime chosen.
        asked: features, and in what they are asked for, as :func:`asked_features` tells it or as a
            setting says it (``{Feature.GPUS: "stages.train.gpus_per_node=2"}``).

    Raises:
        ConfigError: it lacks one; the message names the runtimes that have it.
    """
    for feature, what in asked.items():
        if feature in container.features:
            continue
        able = [name for name, features in _features().items() if feature in features]
        raise ConfigError(
            f"{container.name} does not give {feature.value} (asked for: {what}). "
            f"{_listed(able)}: --container {able[0]}"
        )


def _features() -> dict[str, frozenset[Feature]]:
    """Return the features of every runtime, containers before the host itself."""
    found = {}
    for name in registry.available("containers"):
        implementation = getattr(registry.load("containers", name), "Implementation", None)
        if implementation is not None:
            found[name] = implementation
    ordered = sorted(found.items(), key=lambda each: _rank(*each))
    return {name: implementation.features for name, implementation in ordered}


def _rank(name: str, implementation: type[Container]) -> tuple[bool, bool, str]:
    is_host = implementation.image_format is ImageFormat.NONE
    return is_host, name not in ("apptainer", "docker", "podman"), name


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} does"
    return f"{', '.join(names[:-1])} and {names[-1]} do"
