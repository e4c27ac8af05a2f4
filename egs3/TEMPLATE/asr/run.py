#!/usr/bin/env python3
"""The runner that every speech recognition recipe shares, and the order of its stages."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.utils.config_utils import load_and_merge_config, resolve_config
from espnet3.utils.errors import StorageError
from espnet3.utils.logging_utils import configure_logging
from espnet3.utils.run_utils import (
    anchor_directories,
    apply_training_experiment_context,
    check_mandatory_values,
    check_required_configs,
    find_recipe_dir,
    locate_configs,
)
from espnet3.utils.stages_utils import parse_cli_and_stage_args, resolve_stages, run_stages

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["ALL_STAGES", "DEFAULT_STAGES", "build_parser", "main", "parse_cli_and_stage_args"]

DEFAULT_STAGES: list[str] = [
    "create_dataset",
    "train_tokenizer",
    "collect_stats",
    "train",
    "infer",
    "measure",
    "pack_model",
]
ALL_STAGES: list[str] = list(DEFAULT_STAGES)

# Roles in the order in which systems take them; each has a flag and a template default.
_ROLES = {
    "training": "YAML of the stages create_dataset to train, and of pack_model.",
    "inference": "YAML of the infer stage.",
    "metrics": "YAML of the measure stage.",
    "publication": "YAML of the pack_model stage (optional).",
    "demo": "YAML of demonstration stages.",
}


def build_parser(stages: Sequence[str]) -> argparse.ArgumentParser:
    """Return the standard parser; a recipe may add flags for configs of its own.

    Args:
        stages: the recipe's stages in canonical order, shown by ``--help``.
    """
    default = [stage for stage in stages if stage in DEFAULT_STAGES] or list(stages)
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # an abbreviated flag is not seen by what starts run.py for each stage
        description="Run stages of this recipe, in their canonical order.",
        epilog=f"Stages, in order: {', '.join(stages)}.",
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        metavar="STAGE",
        default=default,
        help=f"stages to run, in any order; 'all' for every one (default: {' '.join(default)})",
    )
    for role, purpose in _ROLES.items():
        parser.add_argument(
            f"--{role}_config", type=Path, default=None, metavar="YAML", help=purpose
        )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="show the order, the log folders and the configs; create and run nothing",
    )
    parser.add_argument(
        "--write_requirements",
        action="store_true",
        help="write the installed packages as requirements.txt beside each stage's log",
    )
    return parser


def main(
    args: argparse.Namespace,
    system_cls: Callable[..., Any],
    stages: Sequence[str] = DEFAULT_STAGES,
) -> None:
    """Load the configs, build the system, and run the requested stages.

    Everything that can be known to be wrong is found before a file is made or a stage started.

    Args:
        args: as :func:`parse_cli_and_stage_args` returns it.
        system_cls: a System class, or any callable that takes the configs as keywords and
            returns a system.
        stages: the canonical order: all of the recipe's stages, or those already resolved.

    Raises:
        ConfigError: a stage, config, file or key is missing or unknown.
        StorageError: the working directory was deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise StorageError(
            "The working directory was deleted. Change into one that is there."
        ) from None
    stages_to_run = resolve_stages(args.stages, stages)
    paths = {role: getattr(args, f"{role}_config", None) for role in _ROLES}
    check_required_configs(stages_to_run, paths)
    recipe_dir = find_recipe_dir(list(paths.values()))
    locate_configs(args, recipe_dir)
    configs = _load_configs(args, recipe_dir)

    logger = configure_logging()
    system = system_cls(**{f"{role}_config": config for role, config in configs.items()})
    logger.info("System: %s", type(system).__name__)
    logger.info("Requested stages: %s", args.stages)
    logger.info("Resolved stages: %s", stages_to_run)
    run_stages(system=system, stages_to_run=stages_to_run, args=args, log=logger)


def _load_configs(args: argparse.Namespace, recipe_dir: Path) -> dict[str, Any]:
    """Return every role's config, merged over the template's defaults and resolved."""
    configs: dict[str, DictConfig | None] = {}
    for role in _ROLES:
        path: Path | None = getattr(args, f"{role}_config", None)
        config = load_and_merge_config(
            path, f"{role}.yaml", default_package="egs3.TEMPLATE.asr", resolve=False
        )
        configs[role] = config
        if config is None or path is None:
            continue
        anchor_directories(config, recipe_dir)
        if role != "training":
            apply_training_experiment_context(configs["training"], config, path)
        inference = configs.get("inference")
        if role == "metrics" and inference is not None and config.get("inference_dir") is None:
            # measure scores what infer of the same command line writes
            config["inference_dir"] = inference.get("inference_dir")
        resolve_config(config, path)
        check_mandatory_values(config, path)
    return configs


if __name__ == "__main__":
    from espnet3.systems.asr.system import ASRSystem

    arguments, requested = parse_cli_and_stage_args(build_parser(ALL_STAGES), ALL_STAGES)
    main(args=arguments, system_cls=ASRSystem, stages=requested)
