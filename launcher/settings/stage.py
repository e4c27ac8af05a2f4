"""The settings of one stage: the launch's, with its own under ``stages.<name>`` over them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError
from launcher.settings.mistakes import about_value, known_elsewhere, nearest
from launcher.settings.ranges import check_ranges
from launcher.settings.resources import Resources

if TYPE_CHECKING:
    from launcher.config import LaunchConfig

_OWN = ("image", "env")


@dataclass(frozen=True)
class StageConfig:
    """What one stage is run with.

    Attributes:
        resources: what it asks of its machine.
        cluster: the ``Settings`` of the cluster.
        image: the name or reference of its image.
        env: variables set for it.
    """

    resources: Resources
    cluster: Any
    image: str
    env: dict[str, str]

    @property
    def num_gpus(self) -> int:
        """GPUs of each node that are asked for, in whichever way: ``gpus_per_node=2``, ``gres``."""
        if self.resources.gpus_per_node:
            return self.resources.gpus_per_node
        asked = 0
        for resource in (getattr(self.cluster, "gres", None) or "").split(","):
            name, *rest = re.sub(r"\(.*", "", resource).split(":")  # gpu:a100:2(S:0-1)
            if name == "gpu":
                asked += int(rest[-1]) if rest and rest[-1].isdigit() else 1
        return asked


def stage_config(config: LaunchConfig, stage: str) -> StageConfig:
    """Return the settings of a stage.

    Raises:
        ConfigError: a key under ``stages.<stage>`` is unknown, or its value of the wrong type.
    """
    given = config.stages.get(stage) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"stages.{stage} is to be a mapping of settings, not {given!r}")
    section = f"stages.{stage}."
    _check_keys(given, config, section)
    env = given.get("env") or {}
    if not isinstance(env, Mapping):
        raise ConfigError(f"{section}env is to be a mapping of variables, not {env!r}")
    return StageConfig(
        resources=_over(config.resources, given, section),
        cluster=_over(config.cluster, given, section),
        image=str(given.get("image") or config.image),
        env={**config.env, **{str(name): str(value) for name, value in env.items()}},
    )


def stage_keys(config: LaunchConfig) -> list[str]:
    """Return the keys that may stand under ``stages.<name>``."""
    cluster = [each.name for each in fields(config.cluster) if each.name != "name"]
    return [*(each.name for each in fields(Resources)), *_OWN, *cluster]


def _check_keys(given: Mapping[str, Any], config: LaunchConfig, section: str) -> None:
    known = stage_keys(config)
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{section}{key}: cluster {config.cluster.name} has no setting '{key}' for a stage."
                f"{_hint(str(key), known)} "
                f"Settings of a stage: {', '.join(known)}."
            )


def _hint(key: str, known: Sequence[str]) -> str:
    """Name the resource that was meant before another cluster's setting of the same name."""
    meant = nearest(key, known)
    return meant if meant and key not in known else known_elsewhere("clusters", key)


def _over(settings: Any, given: Mapping[str, Any], section: str) -> Any:
    """Return settings with those of ``given`` that it has laid over it, checked for their types."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    names = [each.name for each in fields(settings)]
    own = {name: value for name, value in given.items() if name in names}
    if not own:
        return settings
    try:
        typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings), own))
    except OmegaConfBaseException as error:
        raise ConfigError(about_value(error, section)) from error
    check_ranges(typed, section=section)
    return replace(settings, **{name: getattr(typed, name) for name in own})
