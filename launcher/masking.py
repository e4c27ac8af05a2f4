"""Secrets in what the launcher prints and records, masked as the stages mask them.

The rules are those of ``espnet3/utils/masking.py``, one file that needs only the standard library.
It is loaded by its path: ``import espnet3`` may find the framework of the recipe to be launched.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from launcher.recipe import project_root

RULES = Path("espnet3", "utils", "masking.py")
MASK = "***"


def looks_secret(name: str) -> bool:
    """Tell whether a setting or variable of this name is likely to hold a secret."""
    return bool(_rules().looks_secret(name))


def mask_arguments(arguments: Iterable[str]) -> list[str]:
    """Return a command line with secrets replaced: ``--hf_token X`` and ``key.password=X``."""
    return list(_rules().mask_arguments(list(arguments)))


def mask_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables with the values of those replaced that look like secrets."""
    return dict(_rules().mask_mapping(environment))


def mask_configs(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return resolved configs, dotted key to value, without what stands below a secret's key."""
    return {role: dict(_rules().mask_dotted(config)) for role, config in configs.items()}


@cache
def _rules() -> Any:
    path = project_root() / RULES
    spec = importlib.util.spec_from_file_location("launcher.shared_masking", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
