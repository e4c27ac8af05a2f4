"""Clusters and containers by name: one module each, found in its package, with one YAML in conf/.

A third party's module would be found by entry point: :func:`available` is the one place that knows
where modules come from.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from launcher.errors import UsageError, did_you_mean


def available(kind: str) -> list[str]:
    """Return the names of all clusters (``kind="clusters"``) or containers there are."""
    package = importlib.import_module(f"launcher.{kind}")
    return sorted(
        module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "base"
    )


def load(kind: str, name: str) -> ModuleType:
    """Import the module of one cluster or container.

    Raises:
        UsageError: there is none of that name.
    """
    names = available(kind)
    if name not in names:
        singular = kind.removesuffix("s")
        raise UsageError(
            f"there is no {singular} '{name}'.{did_you_mean(name, names)} "
            f"Use --{singular} with one of: {', '.join(names)}."
        )
    return importlib.import_module(f"launcher.{kind}.{name}")
