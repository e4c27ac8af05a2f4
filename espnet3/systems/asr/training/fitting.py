"""Setting up Lightning for one run, and running it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader, IterableDataset

from espnet3.systems.asr.data.batches import Batch, BatchMaker, Position
from espnet3.systems.asr.data.datasets import CutSource
from espnet3.systems.asr.data.endless import START, EndlessBatches
from espnet3.systems.asr.data.feature_store import FeatureStore
from espnet3.systems.asr.data.valid import ValidationBatches
from espnet3.systems.asr.features import LogMel
from espnet3.systems.asr.model import CTCModel
from espnet3.systems.asr.tokenizer import Tokenizer
from espnet3.systems.asr.training.checkpoint_io import AtomicCheckpointIO
from espnet3.systems.asr.training.interruption import (
    Interruption,
    leave_signals_to_training,
)
from espnet3.systems.asr.training.module import CTCTraining
from espnet3.systems.asr.training.progress import TerminalProgress
from espnet3.systems.asr.training.run_folder import RunFolder
from espnet3.systems.asr.training.run_keeper import RunKeeper
from espnet3.systems.asr.training.validation import Validator
from espnet3.systems.asr.training_config import LoaderConfig, TrainingConfig

logger = logging.getLogger(__name__)


def fit(
    config: TrainingConfig,
    model: CTCModel,
    tokenizer_model: bytes,
    train: CutSource,
    valid: CutSource,
    run: RunFolder,
) -> dict[str, Any]:
    """Train ``model`` from the newest checkpoint of ``run`` on; return the run's figures."""
    checkpoint = run.newest_checkpoint()
    start, start_step = START, 0
    if checkpoint is not None:
        start, start_step = resume_point(checkpoint)
        logger.info("Going on from step %d: %s", start_step, checkpoint)
    tokenizer = Tokenizer(tokenizer_model)
    interruption = Interruption()
    with interruption.restored_afterwards(), _quiet_lightning():
        trainer = build_trainer(config, start_step)
        ranks = (trainer.global_rank, trainer.world_size)
        keeper = RunKeeper(
            config.trainer,
            run.checkpoints,
            Validator(_valid_loader(config, tokenizer, valid, *ranks), tokenizer),
            interruption,
            recogniser={
                "config": asdict(config),
                "tokenizer": tokenizer_model,
                "training_key": run.key_sha256,
            },
        )
        trainer.callbacks.insert(0, keeper)  # type: ignore[attr-defined]
        module = CTCTraining(model, config)
        loader = _train_loader(config, tokenizer, train, start, *ranks)
        trainer.fit(module, loader, ckpt_path=str(checkpoint) if checkpoint else None)
        interruption.install()  # Lightning has put back the handlers from before
        # A validation that was cut short at the very last step.
        keeper.finish(trainer, module)
    return keeper.results()


def build_trainer(config: TrainingConfig, start_step: int) -> Trainer:
    """Return the Lightning trainer; validation and checkpoints are the run keeper's."""
    settings = config.trainer
    exp_dir = Path(config.exp_dir)
    loggers: list[Logger] = [
        TensorBoardLogger(exp_dir, name="", version="tensorboard"),
        # Lightning's CSV logger empties its folder: a resumed run gets one of its own.
        # It is written as it goes, for those who look at a training that runs or was killed.
        CSVLogger(
            exp_dir,
            name="metrics",
            version=f"from_step{start_step:08d}",
            flush_logs_every_n_steps=1,
        ),
    ]
    return Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,  # type: ignore[arg-type]
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val,
        logger=loggers,
        log_every_n_steps=settings.log_every_n_steps,
        callbacks=[TerminalProgress(settings.max_steps)],
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def resume_point(checkpoint: Path) -> tuple[Position, int]:
    """Return the place in the data and the step after which ``checkpoint`` was written."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    state = content["callbacks"][RunKeeper.__qualname__]
    return Position(*state["position"]), int(state["step"])


def _store(config: TrainingConfig, loader: LoaderConfig) -> FeatureStore:
    return FeatureStore(LogMel(config.features), cache_mb=loader.cache_mb)


def _train_loader(
    config: TrainingConfig,
    tokenizer: Tokenizer,
    train: CutSource,
    start: Position,
    rank: int,
    world_size: int,
) -> DataLoader[Batch]:
    settings = config.dataloader.train
    batches = EndlessBatches(
        train.epoch_cuts,
        BatchMaker(_store(config, settings), tokenizer),
        settings,
        speed_factors=config.augmentation.speed_factors,
        seed=config.seed,
        total_batches=config.trainer.max_steps * config.trainer.accumulate_grad_batches,
        rank=rank,
        world_size=world_size,
        start=start,
    )
    return _loader(batches, settings)


def _valid_loader(
    config: TrainingConfig, tokenizer: Tokenizer, valid: CutSource, rank: int, world_size: int
) -> DataLoader[Batch]:
    settings = config.dataloader.valid
    make_batch = BatchMaker(_store(config, settings), tokenizer)
    batches = ValidationBatches(valid.cuts, make_batch, settings, rank, world_size)
    return _loader(batches, settings)


def _loader(batches: IterableDataset[Batch], settings: LoaderConfig) -> DataLoader[Batch]:
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=settings.num_workers,
        # A recipe's own dataset package cannot be pickled for spawned workers.
        multiprocessing_context="fork" if settings.num_workers else None,
        worker_init_fn=leave_signals_to_training,
        # Its own generator: making an iterator must not draw from the global one.
        generator=torch.Generator(),
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says of devices, of its other products, and of endless loaders."""
    lightning_logger = logging.getLogger("lightning.pytorch")
    level = lightning_logger.level
    lightning_logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*Experiment logs directory.*",  # of a run begun again at the same step
                ".*srun. command is available.*",  # how its processes start is the launcher's
                ".*LeafSpec.*is deprecated.*",  # Lightning 2.6.6 under torch 2.13
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        lightning_logger.setLevel(level)
