"""The stage ``train``: from the config to a trained recogniser."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espnet3.systems.asr.checkpoints import CheckpointFolder
from espnet3.systems.asr.data.datasets import CutSource, load_split
from espnet3.systems.asr.model import build_model
from espnet3.systems.asr.tokenizer import Tokenizer
from espnet3.systems.asr.training.allocator import keep_freed_memory
from espnet3.systems.asr.training.collect_stats import FeatureStats, stats_file
from espnet3.systems.asr.training.distributed import (
    global_rank,
    rank_zero_first,
    started_by_lightning,
)
from espnet3.systems.asr.training.run_folder import RunFolder
from espnet3.systems.asr.training.run_lock import only_training_in
from espnet3.systems.asr.training_config import TrainingConfig, checked_training_config
from espnet3.utils.errors import storage_errors
from espnet3.utils.files import sha256_of
from espnet3.utils.reuse import Kept

if TYPE_CHECKING:
    from espnet3.systems.asr.system import ASRSystem

logger = logging.getLogger(__name__)


def run_train(system: ASRSystem) -> dict[str, Any]:
    """Train to ``max_steps``, going on from an interrupted run's checkpoint.

    Returns:
        steps, wall seconds, utterances per second, and the validation figures.

    Raises:
        StageInterrupted: a signal came; a checkpoint was written first.
        StorageError: the disk is full or the folder cannot be written.
        BusyError: another process trains in the same folder.
    """
    config = checked_training_config(system)
    with only_training_in(Path(config.exp_dir)) if global_rank() == 0 else nullcontext():
        return _train(system, config)


def _train(system: ASRSystem, config: TrainingConfig) -> dict[str, Any]:
    begin_s = time.perf_counter()
    exp_dir = Path(config.exp_dir)
    settings = config.trainer.checkpoint
    folder = CheckpointFolder(exp_dir, monitor=settings.monitor, keep_best=settings.keep_best)
    with rank_zero_first():
        if global_rank() == 0:
            system.train_tokenizer()
            system.collect_stats()
        train = load_split(config, "train", create=system.create_dataset)
        valid = load_split(config, "valid", create=system.create_dataset)
        run = RunFolder(exp_dir, run_key(config, train, valid), folder)
        if global_rank() == 0:
            run.prepare()
        finished = run.finished_results()
    if finished is not None:
        logger.info("Kept: the finished training, settings and data unchanged: %s", folder.path)
        return Kept(finished)
    with storage_errors(exp_dir):
        results = _fit(config, train, valid, run)
    if started_by_lightning():
        sys.exit(0)  # the rest of the command is rank 0's
    results["wall_s"] = round(time.perf_counter() - begin_s, 2)
    if global_rank() == 0:
        run.mark_finished(results)
    return results


def run_key(config: TrainingConfig, train: CutSource, valid: CutSource) -> dict[str, Any]:
    """Return all that the trained weights depend on, for reuse.

    Where and how fast it runs (devices, workers, log intervals) is left out.
    """
    whole = asdict(config)
    key = {
        name: whole[name]
        for name in (
            "seed",
            "features",
            "augmentation",
            "model",
            "optimizer",
            "scheduler",
            "averaging",
        )
    }
    key["dataset"] = {
        name: {"references": whole["dataset"][name], "cuts": source.digest()}
        for name, source in (("train", train), ("valid", valid))
    }
    loader = whole["dataloader"]["train"]
    key["dataloader"] = {name: loader[name] for name in ("max_duration_s", "num_buckets")}
    trainer = whole["trainer"]
    key["trainer"] = {
        name: trainer[name]
        for name in (
            "max_steps",
            "val_check_interval",
            "precision",
            "accumulate_grad_batches",
            "gradient_clip_val",
            "checkpoint",
            "early_stopping",
        )
    }
    key["tokenizer"] = sha256_of(_tokenizer_file(config))
    key["stats"] = sha256_of(stats_file(Path(config.stats_dir)))
    return key


def _tokenizer_file(config: TrainingConfig) -> Path:
    return Path(config.tokenizer.save_path) / "tokenizer.model"


def _fit(
    config: TrainingConfig, train: CutSource, valid: CutSource, run: RunFolder
) -> dict[str, Any]:
    # Lightning is only imported where it is used: that alone takes seconds.
    from espnet3.systems.asr.training.fitting import fit

    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    keep_freed_memory()
    tokenizer = Tokenizer.load(_tokenizer_file(config).parent)
    torch.manual_seed(config.seed)
    model = build_model(config, tokenizer.vocab_size)
    stats = FeatureStats.load(Path(config.stats_dir))
    model.normalisation.mean.copy_(torch.tensor(stats.mean))
    model.normalisation.std.copy_(torch.tensor(stats.std))
    logger.info(
        "%s of %.2f M parameters, %d tokens, %d training and %d validation utterances",
        config.model.encoder.capitalize(),
        sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        tokenizer.vocab_size,
        len(train.cuts),
        len(valid.cuts),
    )
    return fit(config, model, _tokenizer_file(config).read_bytes(), train, valid, run)
