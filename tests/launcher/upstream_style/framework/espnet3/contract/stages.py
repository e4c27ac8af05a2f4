"""Stages as upstream's 202611 declares them: a class attribute of the system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class StageSpec:
    """A stage: its method, the config that it reads, and the key there that says where it logs."""

    name: str
    config: str
    log_dir: str | None = None


def stage_log_dir(system: Any, name: str) -> Path:
    """Return the folder of a stage's log; a relative one counts from the working directory."""
    (spec,) = [spec for spec in type(system).stages if spec.name == name]
    config = getattr(system, f"{spec.config}_config")
    value = OmegaConf.select(config, spec.log_dir) if spec.log_dir else None
    return Path(value or "logs")
