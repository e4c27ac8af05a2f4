"""What can be wrong with cuts, found before a stage spends time on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from espnet3.data.audio import read_audio, read_header
from espnet3.data.dataset import recordings, transcript
from espnet3.data.pairing import some
from espnet3.utils.errors import DataError

if TYPE_CHECKING:
    from lhotse import CutSet, Recording
    from lhotse.cut import Cut

_REMEDY = (
    "Run the stage create_dataset again, which makes the manifest anew from the audio that is "
    "there, or put the earlier file back."
)
AudioCheck = Literal["none", "header", "samples"]


def check_cuts(
    cuts: CutSet,
    *,
    name: str,
    audio: AudioCheck = "header",
    sample_rate_hz: int | None = None,
) -> None:
    """Check a split: it holds utterances, each with its own id, words and readable audio.

    Args:
        cuts: the split's cuts, in memory.
        name: how the split is called in messages, e.g. ``train``.
        audio: how far audio is looked at. ``header``: existence, rate and length of every file,
            some 50 µs each; ``samples``: every sample is decoded as well; ``none``: not at all.
        sample_rate_hz: the rate that every cut must have; ``None`` asks only that they agree.

    Raises:
        DataError: naming the utterance or file and what to do.
    """
    utterances = list(cuts)
    if not utterances:
        raise DataError(
            f"The split '{name}' is empty. Check the reference's data_src_args in the config, "
            "and what the create_dataset stage logged about it."
        )
    counts = Counter(cut.id for cut in utterances)
    duplicates = [utterance_id for utterance_id, count in counts.items() if count > 1]
    if duplicates:
        raise DataError(
            f"The split '{name}' holds {some(duplicates)} more than once. Every utterance needs "
            "an id of its own: mend the transcript, or name each data set once in the config."
        )
    silent = [cut.id for cut in utterances if not transcript(cut)]
    if silent:
        raise DataError(
            f"The split '{name}' has no transcript for {some(silent)}. Give one, or leave the "
            "utterance out."
        )
    _check_rates(utterances, name, sample_rate_hz)
    if audio != "none":
        for cut in utterances:
            for recording in recordings(cut):
                _check_audio(recording, name, decode=audio == "samples")


def _check_rates(utterances: list[Cut], name: str, sample_rate_hz: int | None) -> None:
    expected = sample_rate_hz or utterances[0].sampling_rate
    for cut in utterances:
        if cut.sampling_rate != expected:
            raise DataError(
                f"The split '{name}': {cut.id} is sampled at {cut.sampling_rate} Hz, "
                f"{expected} Hz is needed. Resample the audio, or set the recipe's rate."
            )


def _check_audio(recording: Recording, name: str, *, decode: bool) -> None:
    path = Path(recording.sources[0].source)
    try:
        if decode:
            samples, rate_hz = read_audio(path)
            num_samples = len(samples)
        else:
            num_samples, rate_hz = read_header(path)
    except DataError as error:
        raise DataError(f"The split '{name}', {recording.id}: {error}") from error
    if rate_hz != recording.sampling_rate:
        raise DataError(
            f"The split '{name}': {path} is sampled at {rate_hz} Hz, its manifest says "
            f"{recording.sampling_rate} Hz. {_REMEDY}"
        )
    if num_samples != recording.num_samples:
        raise DataError(
            f"The split '{name}': {path} holds {num_samples} samples, its manifest says "
            f"{recording.num_samples}: it was cut short or replaced. {_REMEDY}"
        )
