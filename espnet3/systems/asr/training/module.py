"""The Lightning module: one training step of CTC."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from espnet3.systems.asr.data.batches import Batch
from espnet3.systems.asr.model.ctc_model import BLANK_ID, CTCModel
from espnet3.systems.asr.training.optimisation import build_optimizer, build_scheduler
from espnet3.systems.asr.training_config import TrainingConfig


class CTCTraining(LightningModule):
    """Trains a :class:`CTCModel`, and beside it the average of its weights if that is asked for.

    ``model`` is trained; ``averaged`` (or ``None``) is what is validated and decoded with.
    """

    def __init__(self, model: CTCModel, config: TrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.averaged: AveragedModel | None = None
        if config.averaging.decay:
            average = get_ema_multi_avg_fn(config.averaging.decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average)
            self.averaged.requires_grad_(False)

    @property
    def recogniser(self) -> nn.Module:
        """The weights that are validated and decoded with."""
        return self.model if self.averaged is None else self.averaged.module

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and SpecAugment by the batch's place.

        A resumed run then needs no random state from its checkpoint, on any number of ranks.
        """
        place = batch.position.total * self.trainer.world_size + self.global_rank
        seed = (self.config.seed * 1_000_003 + place) % 2**63
        # Not torch.manual_seed: where CUDA is not in use that keeps a stack trace of every call.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the CTC loss per token of ``batch``."""
        log_probs, lengths = self.model(batch.features, batch.feature_lengths)
        return ctc_loss(log_probs, lengths, batch) / batch.token_lengths.sum().clamp(min=1)

    def update_average(self, step: int) -> None:
        """Let the average follow the weights after optimizer step ``step``."""
        if self.averaged is not None and step % self.config.averaging.every_n_steps == 0:
            self.averaged.update_parameters(self.model)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW and its schedule by step."""
        trainer = self.config.trainer
        # Lightning cannot clip what a fused optimizer may unscale by itself, under autocast.
        fused = not trainer.precision.endswith("-mixed")
        optimizer = build_optimizer(self.model, self.config.optimizer, fused=fused)
        scheduler = build_scheduler(optimizer, self.config.scheduler, trainer.max_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def ctc_loss(log_probs: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
    """Return the CTC loss summed over ``batch``; an utterance too short for its tokens gives 0."""
    return nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        batch.tokens,
        lengths,
        batch.token_lengths,
        blank=BLANK_ID,
        reduction="sum",
        zero_infinity=True,
    )
