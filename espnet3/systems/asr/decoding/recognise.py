"""Recognising utterances with a loaded recogniser: batches, device, and the time they take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from espnet3.data import transcript
from espnet3.systems.asr.data.feature_store import FeatureStore
from espnet3.systems.asr.decoding.greedy import greedy_ctc
from espnet3.systems.asr.decoding.hypothesis import Hypothesis
from espnet3.systems.asr.decoding.prefix_beam import prefix_beam_ctc
from espnet3.systems.asr.hypotheses import Candidate, Recognised
from espnet3.systems.asr.inference_config import DecodingConfig
from espnet3.utils.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from espnet3.systems.asr.checkpoints import Recogniser


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the GPU where there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"inference_config: 'model.device' is '{name}', which cannot be used here ({reason}). "
            "Write auto or cpu."
        ) from error
    return device


def batches_by_length(
    cuts: Sequence[Cut], *, batch_size: int, max_batch_duration_s: float
) -> Iterator[list[Cut]]:
    """Yield batches of cuts of like length, the longest first.

    A batch holds at most ``batch_size`` cuts and, padding counted, ``max_batch_duration_s`` of
    audio; a cut longer than that makes a batch of its own.
    """
    batch: list[Cut] = []
    for cut in sorted(cuts, key=lambda each: -each.duration):
        longest_s = batch[0].duration if batch else cut.duration
        is_full = len(batch) == batch_size or longest_s * (len(batch) + 1) > max_batch_duration_s
        if batch and is_full:
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch


@torch.inference_mode()
def recognise(
    recogniser: Recogniser, batch: Sequence[Cut], decoding: DecodingConfig
) -> list[Recognised]:
    """Recognise a batch of utterances.

    The time of decoding is wall time from reading the audio to the text; it is shared out
    among the utterances by their length.

    Raises:
        DataError: audio that cannot be read, or of another sampling rate.
        CheckpointError: the model's output is not a number.
    """
    begin = time.perf_counter()
    store = FeatureStore(recogniser.log_mel, cache_mb=0)
    arrays = [store.features(cut) for cut in batch]
    lengths = [len(array) for array in arrays]
    longest = max(*lengths, 1)
    padded = np.zeros((len(arrays), longest, recogniser.log_mel.num_mel_bins), np.float32)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    device = next(recogniser.model.parameters()).device
    log_probs, output_lengths = recogniser.model(
        torch.from_numpy(padded).to(device), torch.tensor(lengths, device=device)
    )
    if log_probs.isnan().any():
        raise CheckpointError(
            f"The model gives NaN for the batch of '{batch[0].id}': its training diverged. Train "
            "again with a lower optimizer.lr, or name an earlier checkpoint in model.checkpoint."
        )
    found = _search(log_probs, output_lengths, decoding)
    texts = [[recogniser.tokenizer.decode(h.token_ids) for h in nbest] for nbest in found]
    elapsed_s = time.perf_counter() - begin
    total_s = sum(cut.duration for cut in batch)
    return [
        _recognised(recogniser, cut, nbest, nbest_texts, elapsed_s * cut.duration / total_s)
        for cut, nbest, nbest_texts in zip(batch, found, texts, strict=True)
    ]


def _search(
    log_probs: torch.Tensor, lengths: torch.Tensor, decoding: DecodingConfig
) -> list[list[Hypothesis]]:
    if decoding.method == "greedy":
        return [[hypothesis] for hypothesis in greedy_ctc(log_probs, lengths)]
    # The search is many small steps, which a GPU's start-up per step makes slower than a CPU.
    return prefix_beam_ctc(
        log_probs.cpu(), lengths.cpu(), beam_size=decoding.beam_size, nbest=decoding.nbest
    )


def _recognised(
    recogniser: Recogniser, cut: Cut, nbest: list[Hypothesis], texts: list[str], decode_s: float
) -> Recognised:
    best = nbest[0]
    config = recogniser.config
    frame_s = config.model.subsampling.factor * config.features.frame_shift_ms / 1000
    speakers = {each.speaker for each in cut.supervisions if each.speaker}
    return Recognised(
        utt_id=cut.id,
        text=texts[0],
        score=round(best.score, 4),
        tokens=[recogniser.tokenizer.pieces[index] for index in best.token_ids],
        token_starts_s=[round(frame * frame_s, 3) for frame in best.frames],
        nbest=[
            Candidate(text, round(hypothesis.score, 4))
            for text, hypothesis in zip(texts, nbest, strict=True)
        ],
        audio_s=round(cut.duration, 4),
        decode_s=round(decode_s, 6),
        speaker=speakers.pop() if len(speakers) == 1 else None,
        reference=transcript(cut),
    )
