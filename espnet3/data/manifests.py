"""Manifests that may be moved: lhotse JSON lines whose audio paths count from ``data_dir``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from espnet3.utils.errors import DataError
from espnet3.utils.files import atomic_path

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

SUFFIX = ".cuts.jsonl.gz"


def utterance_cut(
    utterance_id: str,
    *,
    text: str,
    speaker: str,
    audio: Path,
    num_samples: int,
    sample_rate_hz: int,
) -> MonoCut:
    """Return a cut over one whole mono file with one supervision.

    Args:
        utterance_id: the id of cut, recording and supervision.
        text: the transcript.
        speaker: the speaker's id.
        audio: the file's path, as it is to stand in the manifest (relative to ``data_dir``).
        num_samples: the file's length in samples.
        sample_rate_hz: the file's sampling rate in Hz.
    """
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    duration_s = num_samples / sample_rate_hz
    recording = Recording(
        id=utterance_id,
        sources=[AudioSource(type="file", channels=[0], source=audio.as_posix())],
        sampling_rate=sample_rate_hz,
        num_samples=num_samples,
        duration=duration_s,
    )
    supervision = SupervisionSegment(
        id=utterance_id,
        recording_id=utterance_id,
        start=0.0,
        duration=duration_s,
        text=text,
        speaker=speaker,
    )
    return MonoCut(
        id=utterance_id,
        start=0.0,
        duration=duration_s,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )


def save_cuts(cuts: Iterable[MonoCut], manifest: Path) -> None:
    """Write cuts, sorted by id, to ``manifest`` (``….cuts.jsonl.gz``), whole or not at all."""
    from lhotse import CutSet

    ordered = CutSet.from_cuts(sorted(cuts, key=lambda cut: cut.id))
    with atomic_path(manifest) as temporary:
        ordered.to_file(temporary)


def load_cuts(manifest: Path, *, data_dir: Path) -> CutSet:
    """Read a manifest into memory; relative audio paths in it count from ``data_dir``.

    Raises:
        DataError: when the manifest is missing or cannot be read.
    """
    from lhotse import CutSet

    if not manifest.is_file():
        raise DataError(
            f"No manifest {manifest}. Make it with: run.py --stages create_dataset "
            "--training_config conf/training.yaml"
        )
    try:
        # lhotse gives None for a manifest without lines; check_cuts says what an empty split means.
        cuts = (CutSet.from_file(manifest) or CutSet.from_cuts([])).to_eager()
        return cuts.with_recording_path_prefix(data_dir.absolute()).to_eager()
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The manifest {manifest} cannot be read ({error}). Remove it and run the "
            "create_dataset stage again."
        ) from error
