"""What is said of a setting that does not exist, or has a value that it cannot have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from launcher import registry
from launcher.errors import did_you_mean

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException

# What other tools call a resource.
_SYNONYMS = {
    **dict.fromkeys(("cpu", "cpus", "num_cpus", "ncpus", "n_cpus"), "cpus_per_task"),
    **dict.fromkeys(("gpu", "gpus", "num_gpus", "ngpus", "n_gpus"), "gpus_per_node"),
    **dict.fromkeys(("mem", "memory", "memory_gb", "mem_mb", "ram"), "mem_gb"),
    **dict.fromkeys(("time", "time_min", "timeout", "walltime", "time_limit"), "timeout_min"),
    **dict.fromkeys(("num_nodes", "node"), "nodes"),
}
_KINDS = {"ListConfig": "a list, such as [a, b]", "Dict": "a mapping, such as {a: b}"}
_TYPES = {"Float": "a number", "Integer": "a whole number", "Bool": "true or false"}


def nearest(key: str, known: Iterable[str]) -> str:
    """Return a sentence that names the setting which was meant, or nothing.

    Args:
        key: as it was given, its sections included.
        known: the keys that there are, in the same form.
    """
    known = list(known)
    section, _, leaf = key.rpartition(".")
    synonym = _SYNONYMS.get(leaf)
    if synonym is not None:
        for candidate in (f"{section}.{synonym}" if section else synonym, f"resources.{synonym}"):
            if candidate in known:
                return f" Did you mean '{candidate}'?"
    return did_you_mean(key, known)


def known_elsewhere(kind: str, key: str) -> str:
    """Return a sentence on the clusters or containers that have a setting of that name."""
    owners = [
        name
        for name in registry.available(kind)
        if key in {each.name for each in fields(registry.load(kind, name).Settings)}
    ]
    if not owners:
        return ""
    singular = kind.removesuffix("s")
    return (
        f" It is a setting of {singular} {' and '.join(owners)}: use --{singular} {owners[0]}, or "
        f"keep it for that one, in conf/launch.yaml under {kind}.{owners[0]}."
    )


def about_value(error: OmegaConfBaseException, section: str = "") -> str:
    """Say which setting has a value that it cannot have, and what it could have.

    Args:
        error: OmegaConf's.
        section: that its keys are below, with a dot at its end.
    """
    said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    key = f"{section}{error.full_key or error.key or ''}"
    if said.startswith("Key ") and "not in" in said:
        known = [] if error.parent_node is None else [str(each) for each in error.parent_node]
        leaf = key.rpartition(".")[2]
        return f"there is no setting '{key}'.{nearest(leaf, known)} There are: {', '.join(known)}."
    converted = re.match(r"Value '(.*)' of type '(\w+)' could not be converted to (\w+)$", said)
    if converted is not None:
        value, _, kind = converted.groups()
        return f"{key} is '{value}'; it is to be {_TYPES.get(kind, kind)}."
    if said.endswith("is not Optional"):
        return f"{key} cannot be null. Leave it out."
    for kind, wanted in _KINDS.items():
        if f"not a {kind}" in said or f"to {kind}[" in said:
            return f"{key} is to be {wanted}."
    return f"{key}: {said}."
