"""Validation: loss and greedy word error rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from lightning.pytorch import Trainer
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from espnet3.systems.asr.data.batches import Batch
from espnet3.systems.asr.decoding import greedy_ctc
from espnet3.systems.asr.tokenizer import Tokenizer
from espnet3.systems.asr.training.module import CTCTraining, ctc_loss


@torch.no_grad()
def count_errors(
    model: nn.Module,
    batches: Iterable[Batch],
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    after_each: Callable[[], None],
) -> Tensor:
    """Return (loss, tokens, word errors, words), summed over ``batches``, as float64.

    Args:
        model: a CTC model; it is left in the mode it was in.
        batches: the validation batches of this rank.
        tokenizer: gives the words of the hypotheses.
        device: where the model is.
        after_each: called after each batch; it may raise to end the validation.
    """
    counts = torch.zeros(4, dtype=torch.float64)
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            features, lengths = batch.features.to(device), batch.feature_lengths.to(device)
            log_probs, lengths = model(features, lengths)
            log_probs, lengths = log_probs.cpu(), lengths.cpu()
            counts[0] += float(ctc_loss(log_probs, lengths, batch))
            counts[1] += int(batch.token_lengths.sum())
            for text, hypothesis in zip(batch.texts, greedy_ctc(log_probs, lengths), strict=True):
                words = text.split()
                decoded = tokenizer.decode(hypothesis.token_ids).split()
                counts[2] += Levenshtein.distance(words, decoded)
                counts[3] += len(words)
            after_each()
    finally:
        model.train(was_training)
    return counts


def figures(counts: Tensor) -> dict[str, float]:
    """Return loss per token and WER in percent from the counts of all ranks."""
    loss, tokens, errors, words = counts.tolist()
    return {
        "valid_loss": round(loss / max(tokens, 1), 6),
        "valid_WER": round(100.0 * errors / max(words, 1), 4),
    }


class Validator:
    """Validates the recogniser's weights on this rank's share of the batches, and adds up."""

    def __init__(self, batches: Iterable[Batch], tokenizer: Tokenizer) -> None:
        self.batches = batches
        self.tokenizer = tokenizer

    def __call__(
        self, trainer: Trainer, module: CTCTraining, *, after_each: Callable[[], None]
    ) -> dict[str, float]:
        """Return ``valid_loss`` (per token) and ``valid_WER`` (percent) over all ranks."""
        with trainer.precision_plugin.forward_context():
            counts = count_errors(
                module.recogniser,
                self.batches,
                self.tokenizer,
                device=module.device,
                after_each=after_each,
            )
        if trainer.world_size > 1:
            counts = trainer.strategy.reduce(counts.to(module.device), reduce_op="sum").cpu()
        return figures(counts)
