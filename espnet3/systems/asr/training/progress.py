"""Progress of the training in a terminal; silent elsewhere."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm


class TerminalProgress(Callback):
    """A bar over optimizer steps, drawn only where standard error is a terminal."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the step that training goes on from."""
        # disable=None: tqdm itself asks whether the stream is a terminal.
        disable = None if trainer.is_global_zero else True
        self._bar = tqdm(
            total=self.max_steps,
            initial=trainer.global_step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            leave=False,
            disable=disable,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar to the step reached."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the bar, however training ended."""
        if self._bar is not None:
            self._bar.close()
