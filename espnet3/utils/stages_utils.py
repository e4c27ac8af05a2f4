"""Choosing the stages of a run and running them: order, logs, timing, and how each one ended."""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet3.utils.config_keys import missing_keys_named
from espnet3.utils.errors import (
    ConfigError,
    MissingStageError,
    RecipeError,
    StageSignatureError,
    UnknownStageError,
    nearest,
)
from espnet3.utils.logging_utils import (
    log_stage,
    log_stage_metadata,
    set_stage_log_handler,
    stage_log_handler,
)
from espnet3.utils.ranks import process_rank
from espnet3.utils.reuse import Kept
from espnet3.utils.stage_endings import StageSignals, how_it_ended, log_ending
from espnet3.utils.uncaught import mark_reported, show_uncaught

logger = logging.getLogger(__name__)

ALL = "all"
_LOG_MODES = ("rank0", "per_rank")


def resolve_stages(requested: Sequence[str] | None, stages: Sequence[str]) -> list[str]:
    """Return the requested stages in the runner's order, each once.

    Args:
        requested: names in any order; ``all`` stands for every stage; ``None`` likewise.
        stages: the runner's stages in canonical order.

    Raises:
        UnknownStageError: naming the nearest known stage, and all of them.
    """
    for name in requested or ():
        if name != ALL and name not in stages:
            raise UnknownStageError(
                f"Unknown stage '{name}'.{nearest(name, list(stages))} "
                f"Stages of this recipe, in order: {', '.join(stages)}; or 'all'."
            )
    if requested is None or ALL in requested:
        return list(stages)
    return [stage for stage in stages if stage in requested]


def parse_cli_and_stage_args(
    parser: argparse.ArgumentParser, stages: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line and resolve its stages.

    From here on, a mistake in what the recipe was given is shown without a traceback.

    Returns:
        The parsed arguments and the stages to run, in canonical order.
    """
    sys.excepthook = show_uncaught
    args = parser.parse_args()
    try:
        return args, resolve_stages(args.stages, stages)
    except UnknownStageError as error:
        parser.exit(2, f"error: {error}\n")


def run_stages(
    system: Any,
    stages_to_run: Iterable[str],
    args: argparse.Namespace | None = None,
    log: logging.Logger | None = None,
) -> None:
    """Call the named methods of ``system`` in the given order, each with its own log.

    Each stage writes ``<stage>.log`` and ``<stage>.metadata.json`` in the folder that
    ``system.stage_log_dirs`` names for it. A mapping that the method returns is recorded in the
    metadata as ``results``, and whether it is :class:`~espnet3.utils.reuse.Kept` as ``kept``. Of
    several processes that train together, those of a rank above 0 run only ``train``.

    Args:
        system: has one method without arguments for each stage.
        stages_to_run: names in the order of running (see :func:`resolve_stages`).
        args: the parsed command line; with ``dry_run`` set, the plan is logged and nothing
            is created or run.
        log: receives the START and DONE lines; this module's logger by default.

    Raises:
        MissingStageError: the system has no method of that name; nothing was started.
        StageSignatureError: the method wants arguments; nothing was started.
        Exception: whatever a stage raised, after it was recorded.
        SystemExit: likewise; a signal ends the run with 128 plus its number.
    """
    log = log or logger
    stages = list(stages_to_run)
    methods = {stage: _stage_method(system, stage) for stage in stages}
    log_mode = _log_mode(system)
    for stage, method in methods.items():
        if stage != "train" and process_rank() > 0:
            continue  # only training is the work of several processes
        if getattr(args, "dry_run", False):
            _show_plan(system, stage, args, log)
            continue
        signals = StageSignals()
        with log_stage(stage), signals.held():
            _run_stage(system, stage, method, args, log, log_mode, signals)


def stage_log_dir(system: Any, stage: str) -> Path:
    """Return the folder of a stage's log: its entry in ``stage_log_dirs``, or the default."""
    directories: Mapping[str, Any] = getattr(system, "stage_log_dirs", {})
    return Path(directories.get(stage) or directories.get("default") or Path.cwd() / "logs")


def _run_stage(
    system: Any,
    stage: str,
    method: Callable[[], Any],
    args: argparse.Namespace | None,
    log: logging.Logger,
    log_mode: str,
    signals: StageSignals,
) -> None:
    # Imported here: `run.py --help` needs none of it.
    from espnet3.utils.metadata import finish_metadata, reset_peak_memory, stage_metadata

    rank = process_rank()
    stem = f"{stage}_rank{rank}" if stage == "train" and log_mode == "per_rank" else stage
    writes_log = rank == 0 or log_mode == "per_rank"
    metadata = stage_metadata(stage, system, args)
    set_stage_log_handler(
        stage_log_dir(system, stage) if writes_log else None, f"{stem}.log", metadata
    )
    handler = stage_log_handler()
    start = time.perf_counter()
    reset_peak_memory()
    try:
        log.info("=== [START] stage: %s ===", stage)
        log_stage_metadata(log, system, args, metadata)
        with signals.raised(), missing_keys_named(system, args):
            results = method()
        if handler is not None and handler.failure is not None:
            raise handler.failure
        if isinstance(results, Mapping):
            metadata.update(results=dict(results), kept=isinstance(results, Kept))
        metadata.update(state="done", exit={"status": 0})
        log.info("=== [DONE] stage: %s (%.2fs) ===", stage, time.perf_counter() - start)
    except BaseException as error:
        metadata.update(how_it_ended(error))
        log_ending(log, stage, error, metadata, time.perf_counter() - start)
        mark_reported(error, stage)
        raise
    finally:
        finish_metadata(metadata)
        try:
            if handler is not None:
                handler.files.write_metadata(metadata)
        except RecipeError as error:  # the stage's own ending matters more
            log.error("The metadata of stage %s could not be written: %s", stage, error)
        finally:
            set_stage_log_handler(None, "")


def _stage_method(system: Any, stage: str) -> Callable[[], Any]:
    method = getattr(system, stage, None)
    if not callable(method):
        raise MissingStageError(
            f"System has no stage method: {stage}. Add a method '{stage}(self)' to "
            f"{type(system).__name__}, or take the name out of the runner's stage list."
        )
    try:
        inspect.signature(method).bind()
    except TypeError as error:
        raise StageSignatureError(
            f"Stage '{stage}' cannot be called without arguments ({error}). Put its settings "
            "into the YAML config and read them from self.training_config or from a config of "
            "its own; a stage method takes only self."
        ) from None
    except ValueError:  # a builtin without a signature
        pass
    return method


def _log_mode(system: Any) -> str:
    config = getattr(system, "training_config", None)
    mode = config.get("stage_log_mode", _LOG_MODES[0]) if config is not None else _LOG_MODES[0]
    if mode not in _LOG_MODES:
        raise ConfigError(
            f"training_config.stage_log_mode is {mode!r}; it must be {' or '.join(_LOG_MODES)}."
        )
    return str(mode)


def _show_plan(
    system: Any, stage: str, args: argparse.Namespace | None, log: logging.Logger
) -> None:
    log.info("[DRY RUN] would run stage: %s", stage)
    log.info("[DRY RUN]   log: %s", stage_log_dir(system, stage) / f"{stage}.log")
    for name, value in vars(args or argparse.Namespace()).items():
        if name.endswith("_config") and value is not None:
            log.info("[DRY RUN]   %s: %s", name, value)
