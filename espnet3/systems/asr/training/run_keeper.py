"""The callback that keeps a run: averages, validates, saves, stops, and ends on a signal.

Lightning's own validation loop and ModelCheckpoint are not used. Resuming in the middle of that
loop skips or repeats a validation, so the best checkpoint of an interrupted run could differ from
an undisturbed one's. Here all of it happens in one place, right after an optimizer step.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from espnet3.systems.asr.checkpoints import CheckpointFolder
from espnet3.systems.asr.data.batches import Batch, Position
from espnet3.systems.asr.data.endless import START
from espnet3.systems.asr.training.interruption import Interruption
from espnet3.systems.asr.training.module import CTCTraining
from espnet3.systems.asr.training.validation import Validator
from espnet3.systems.asr.training_config import TrainerConfig
from espnet3.utils.stage_endings import StageInterrupted

logger = logging.getLogger(__name__)


class RunKeeper(Callback):
    """Keeps a training run on record, step by step.

    Args:
        config: the trainer's settings.
        folder: where checkpoints go.
        validator: gives the validation figures.
        interruption: the signals received.
        recogniser: what a checkpoint carries beside the weights, for decoding.
    """

    def __init__(
        self,
        config: TrainerConfig,
        folder: CheckpointFolder,
        validator: Validator,
        interruption: Interruption,
        recogniser: dict[str, Any],
    ) -> None:
        self.config = config
        self.folder = folder
        self.validator = validator
        self.interruption = interruption
        self.recogniser = recogniser
        self.step = 0
        self.position = START
        self.utterances = 0
        self.train_s = 0.0
        self.validation_pending = False
        self.figures: dict[str, float] = {}
        self.best: float | None = None
        self.validations_without_gain = 0
        self._clock_s = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on as if it had not ended."""
        return {
            "step": self.step,
            "position": list(self.position),
            "utterances": self.utterances,
            "train_s": self.train_s,
            "validation_pending": self.validation_pending,
            "figures": self.figures,
            "best": self.best,
            "validations_without_gain": self.validations_without_gain,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an earlier run."""
        for name, value in state_dict.items():
            setattr(self, name, value)
        self.position = Position(*state_dict["position"])

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what recognition needs beside the weights."""
        checkpoint["recogniser"] = self.recogniser

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for signals, and make up for a validation that a signal cut short."""
        self.interruption.install()
        self._clock_s = time.perf_counter()
        self.finish(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """After an optimizer step: average, log, and where it is due validate and save."""
        self.position = batch.position
        self.utterances += len(batch.texts) * trainer.world_size
        if trainer.global_step == self.step:
            return  # still accumulating gradients
        self.step = trainer.global_step
        assert isinstance(pl_module, CTCTraining)
        pl_module.update_average(self.step)
        last = self.step >= self.config.max_steps
        self.validation_pending = last or self.step % self.config.val_check_interval == 0
        if last or self.step % self.config.log_every_n_steps == 0:
            self._log_step(trainer, outputs)
        if self.interruption.requested(trainer):
            self._save_and_end(trainer)
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate and save, if that is still to be done for the current step."""
        if not self.validation_pending:
            return
        assert isinstance(pl_module, CTCTraining)
        self._stop_clock()
        figures = self.validator(trainer, pl_module, after_each=lambda: self._end_if_asked(trainer))
        self.validation_pending = False
        self.figures = figures
        self._note_gain(trainer, figures[self.config.checkpoint.monitor])
        self._save(trainer, figures)
        self._log_figures(trainer, figures)
        self._clock_s = time.perf_counter()
        if self.interruption.requested(trainer):
            self._end()

    def _note_gain(self, trainer: Trainer, figure: float) -> None:
        if self.best is None or figure < self.best:
            self.best, self.validations_without_gain = figure, 0
            return
        self.validations_without_gain += 1
        patience = self.config.early_stopping.patience
        if patience and self.validations_without_gain >= patience:
            logger.info(
                "Stopping early: %d validations without a better %s than %.4g",
                patience,
                self.config.checkpoint.monitor,
                self.best,
            )
            trainer.should_stop = True

    def _save(self, trainer: Trainer, figures: dict[str, float]) -> None:
        trainer.save_checkpoint(self.folder.file(self.step))
        if trainer.is_global_zero:
            self.folder.add(self.step, figures)

    def _end_if_asked(self, trainer: Trainer) -> None:
        # Ranks validate different numbers of batches, so they agree to end only afterwards.
        if trainer.world_size == 1 and self.interruption.requested(trainer):
            self._save_and_end(trainer)

    def _save_and_end(self, trainer: Trainer) -> None:
        self._stop_clock()
        self._save(trainer, {})
        self._end()

    def _end(self) -> None:
        signum = self.interruption.signum
        assert signum is not None
        raise StageInterrupted(
            signum,
            f"checkpoint after step {self.step} of {self.config.max_steps}; the next train goes"
            f" on from {self.folder.file(self.step)}",
        )

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.train_s += now - self._clock_s
        self._clock_s = now

    def _log_step(self, trainer: Trainer, outputs: Any) -> None:
        loss = float(outputs["loss"]) * self.config.accumulate_grad_batches
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        metrics = {"train_loss": loss, "learning_rate": rate, "epoch": self.position.epoch}
        for own_logger in trainer.loggers:
            own_logger.log_metrics(metrics, self.step)

    def _log_figures(self, trainer: Trainer, figures: dict[str, float]) -> None:
        for own_logger in trainer.loggers:
            own_logger.log_metrics(figures, self.step)
        logger.info(
            "step %d of %d: valid WER %.2f %%, valid loss %.4f, %.0f utterances/s",
            self.step,
            self.config.max_steps,
            figures["valid_WER"],
            figures["valid_loss"],
            self.utterances / max(self.train_s, 1e-9),
        )

    def results(self) -> dict[str, Any]:
        """Return the run's figures: at its end, and the WER of its best checkpoint."""
        best = self.folder.by_merit(self.folder.entries())
        return {
            "steps": self.step,
            "epochs": self.position.epoch + 1,
            **self.figures,
            **({"best_valid_WER": best[0].metrics["valid_WER"]} if best else {}),
            "utterances_per_s": round(self.utterances / max(self.train_s, 1e-9), 1),
        }
