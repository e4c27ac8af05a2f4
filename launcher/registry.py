"""Clusters and containers by name: one module each, found in its package, with one YAML in conf/.

A third party's module is found by its entry point, in the group ``launcher.clusters`` or
``launcher.containers``, under the name that is given to ``--cluster`` or ``--container``; the
defaults of its ``Settings`` stand for a YAML.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from launcher.errors import UsageError, did_you_mean

_NOT_ONES = ("base",)


def available(kind: str) -> list[str]:
    """Return the names of all clusters (``kind="clusters"``) or containers there are."""
    return sorted({*_own(kind), *_installed(kind)})


def is_own(kind: str, name: str) -> bool:
    """Tell whether a cluster or container is one of the launcher's own."""
    return name in _own(kind)


def load(kind: str, name: str) -> ModuleType:
    """Import the module of one cluster or container.

    Raises:
        UsageError: there is none of that name.
    """
    if name in _own(kind):
        return importlib.import_module(f"launcher.{kind}.{name}")
    installed = _installed(kind)
    if name in installed:
        return importlib.import_module(installed[name])
    names = available(kind)
    singular = kind.removesuffix("s")
    raise UsageError(
        f"there is no {singular} '{name}'.{did_you_mean(name, names)} "
        f"Use --{singular} with one of: {', '.join(names)}."
    )


def _own(kind: str) -> list[str]:
    package = importlib.import_module(f"launcher.{kind}")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return [name for name in names if name not in _NOT_ONES and not name.startswith("_")]


def _installed(kind: str) -> dict[str, str]:
    from importlib.metadata import entry_points

    return {each.name: each.value for each in entry_points(group=f"launcher.{kind}")}
