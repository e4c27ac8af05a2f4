"""Reading recordings of any common format, and writing 16-bit WAV."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from espnet3.utils.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import soundfile

_REMEDY = (
    "Put a whole copy in its place, or take the utterance out of the transcripts; then run the "
    "stage create_dataset again."
)
_FLOATING = ("FLOAT", "DOUBLE")
# How libsndfile's log puts that a chunk of samples is shorter than its header says.
_MENDED_LENGTH = re.compile(r"^(?:data| *Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_LENGTH_UNKNOWN = 0x7FFFF000  # what programs write that could not go back to the header


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """Decode a mono file of any format that libsndfile knows (WAV, FLAC, NIST SPHERE, …).

    Returns:
        Samples, int16 of shape ``(num_samples,)``, and the sampling rate in Hz.

    Raises:
        DataError: when the file is missing, unreadable, truncated, empty, of several channels,
            holds NaN or nothing but silence.
    """
    import numpy as np
    import soundfile

    with _readable(path), soundfile.SoundFile(str(path)) as stream:
        announced, sample_rate_hz = _announced_samples(path, stream), stream.samplerate
        samples = stream.read(dtype="float64" if stream.subtype in _FLOATING else "int16")
    if samples.ndim != 1:
        raise DataError(f"{path} has {samples.shape[1]} channels, one is needed. Mix it down.")
    if len(samples) < announced or not len(samples):
        raise DataError(f"{path} is truncated: {len(samples)} of {announced} samples. {_REMEDY}")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds NaN or infinite samples. Record or convert it again.")
    if not samples.any():
        raise DataError(
            f"{path} holds nothing but silence (every sample is 0). Record it again, or leave the "
            "utterance out."
        )
    if samples.dtype != np.int16:
        samples = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    return samples, sample_rate_hz


def read_header(path: Path) -> tuple[int, int]:
    """Return the length in samples and the rate in Hz that an audio file's header states.

    Raises:
        DataError: when the file is missing or is no audio.
    """
    import soundfile

    with _readable(path):
        header = soundfile.info(str(path))
    return header.frames, header.samplerate


def write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Write int16 ``samples`` of shape ``(num_samples,)`` as a mono WAV file."""
    import soundfile

    # Encoded in memory first: libsndfile hides a full disk behind an error without errno.
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate_hz, format="WAV", subtype="PCM_16")
    path.write_bytes(encoded.getvalue())


def _announced_samples(path: Path, stream: soundfile.SoundFile) -> int:
    """Return the length that the header states; libsndfile silently takes what is there instead."""
    if stream.format == "NIST":
        with path.open("rb") as header:
            stated = re.search(rb"^sample_count -i (\d+)", header.read(1024), re.MULTILINE)
        return int(stated[1] if stated else stream.frames)
    mended = _MENDED_LENGTH.search(stream.extra_info)
    if mended is None:
        return int(stream.frames)
    stated_bytes, found_bytes = int(mended[1]), int(mended[2])
    if stated_bytes <= found_bytes or stated_bytes >= _LENGTH_UNKNOWN:
        return int(stream.frames)
    return int(stream.frames * stated_bytes // max(found_bytes, 1))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import soundfile

    if not path.is_file():
        raise DataError(f"There is no audio file {path}. {_REMEDY}")
    try:
        yield
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).split(": ", 1)[-1].rstrip(".")
        raise DataError(f"{path} cannot be read as audio ({reason}). {_REMEDY}") from error
