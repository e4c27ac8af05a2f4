"""The base of every system: it holds the configs and knows where each stage logs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

StageLogReference = str | Sequence[str]

BASE_STAGE_LOG_MAPPING: dict[str, StageLogReference] = {
    "create_dataset": "training_config.data_dir",
    "train_tokenizer": "training_config.tokenizer.save_path",
    "collect_stats": "training_config.stats_dir",
    "train": "training_config.exp_dir",
    "infer": "inference_config.inference_dir",
    "measure": "metrics_config.inference_dir",
    "pack_model": "training_config.exp_dir",
}


class BaseSystem:
    """A system: one method without arguments for each stage, its settings in the configs.

    Args:
        training_config: of the stages up to ``train``, and of ``pack_model``.
        inference_config: of ``infer``.
        metrics_config: of ``measure``.
        publication_config: of ``pack_model``, optional.
        stage_log_mapping: where stages log, laid over the base mapping: ``{"export":
            "training_config.exp_dir"}``. A value is a dotted path from the system, or a list of
            them of which the first that is set counts. It may name a config that a subclass
            stores after this constructor: the paths are looked up when they are first needed.
        demo_config: of demonstration stages, optional.
        **older_names: ``train_config``, ``infer_config`` and ``metric_config``, the spellings
            of earlier documentation.

    Attributes:
        exp_dir: ``training_config.exp_dir`` as a path, or ``None``. Nothing is created here.
        stage_log_dirs: folder of each stage's log, and ``"default"`` for the others.

    Raises:
        ConfigError: the same config was given under two names.
        TypeError: an argument that no system knows.
    """

    def __init__(
        self,
        training_config: DictConfig | None = None,
        inference_config: DictConfig | None = None,
        metrics_config: DictConfig | None = None,
        publication_config: DictConfig | None = None,
        stage_log_mapping: Mapping[str, StageLogReference] | None = None,
        demo_config: DictConfig | None = None,
        **older_names: DictConfig | None,
    ) -> None:
        self.training_config = _either("training_config", training_config, older_names)
        self.inference_config = _either("inference_config", inference_config, older_names)
        self.metrics_config = _either("metrics_config", metrics_config, older_names)
        if older_names:
            raise TypeError(
                f"{type(self).__name__} got unexpected arguments: {', '.join(sorted(older_names))}"
            )
        self.publication_config = publication_config
        self.demo_config = demo_config
        exp_dir = self._lookup("training_config.exp_dir", required=False)
        self.exp_dir: Path | None = self._path(exp_dir) if exp_dir is not None else None
        self._own_log_mapping = dict(stage_log_mapping or {})

    @cached_property
    def stage_log_dirs(self) -> dict[str, Path]:
        """Folder of each stage's log; ``"default"`` stands for the stages not named.

        Raises:
            ConfigError: a path of ``stage_log_mapping`` points at a key that is not there.
        """
        directories = {"default": self.exp_dir or Path.cwd() / "logs"}
        for stage, reference in BASE_STAGE_LOG_MAPPING.items():
            self._add_log_dir(directories, stage, reference, required=False)
        for stage, reference in self._own_log_mapping.items():
            directories.pop(stage, None)
            self._add_log_dir(directories, stage, reference, required=True)
        return directories

    def create_dataset(self) -> dict[str, Any]:
        """Fetch and prepare every data set that the training config refers to.

        Returns:
            For each reference, e.g. ``train``, its number of utterances and minutes.
        """
        from espnet3.data import create_dataset

        if self.training_config is None:
            raise ConfigError("create_dataset needs a training config. Use --training_config.")
        return create_dataset(self.training_config)

    def _add_log_dir(
        self,
        directories: dict[str, Path],
        stage: str,
        reference: StageLogReference,
        *,
        required: bool,
    ) -> None:
        choices = [reference] if isinstance(reference, str) else list(reference)
        for choice in choices:
            value = self._lookup(choice, required=required and len(choices) == 1, stage=stage)
            if value is not None:
                directories[stage] = self._path(value)
                return

    def _lookup(self, reference: str, *, required: bool, stage: str = "") -> Any:
        """Return the value at a dotted path from this system; ``None`` where it is not set."""
        from omegaconf import OmegaConf

        first, _, rest = reference.partition(".")
        config = getattr(self, first, None)
        if not hasattr(self, first) and required:
            raise ConfigError(
                f"stage_log_mapping of '{stage}' is '{reference}', but {type(self).__name__} "
                f"has no attribute '{first}'."
            )
        if config is None or not rest:
            return config
        value = OmegaConf.select(OmegaConf.create(config), rest)
        if value is None and required:
            raise ConfigError(
                f"stage_log_mapping of '{stage}' is '{reference}', but {first} has no key "
                f"'{rest}'. Set it in the YAML, or name another key."
            )
        return value

    def _path(self, value: Any) -> Path:
        """Return an absolute path; a relative one counts from the recipe's folder if known."""
        recipe_dir = self._lookup("training_config.recipe_dir", required=False)
        base = Path.cwd() / recipe_dir if recipe_dir is not None else Path.cwd()
        return base / str(value)


def _either(
    name: str, config: DictConfig | None, older_names: dict[str, DictConfig | None]
) -> DictConfig | None:
    older_name = {
        "training_config": "train_config",
        "inference_config": "infer_config",
        "metrics_config": "metric_config",
    }[name]
    older = older_names.pop(older_name, None)
    if config is not None and older is not None:
        raise ConfigError(f"{name} and {older_name} are the same config; give only {name}.")
    return config if config is not None else older
