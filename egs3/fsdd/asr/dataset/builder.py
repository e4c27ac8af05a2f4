"""From the published recordings of single digits to fixed strings of five."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet3.data.archives import download, unpack
from espnet3.data.audio import read_audio, write_wav
from espnet3.data.manifests import SUFFIX, save_cuts, utterance_cut
from espnet3.data.pinned import PinnedSourceBuilder
from espnet3.utils.errors import DataError

from .strings import SPLITS, WORDS, fixed_strings

SAMPLE_RATE_HZ = 8000
_NUM_RECORDINGS = 3000
# Tag v1.0.10 of the upstream repository.
_COMMIT = "d6938f9bf1545aa66d8489fc9f1385a7abd64282"
_URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_COMMIT}.tar.gz"
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav")


class Take(NamedTuple):
    """One recording: what ``speaker`` said when asked for ``digit`` the ``repetition``-th time."""

    digit: int
    speaker: str
    repetition: int

    @property
    def file_name(self) -> str:
        """Return the recording's name upstream, e.g. ``7_jackson_32.wav``."""
        return f"{self.digit}_{self.speaker}_{self.repetition}.wav"


class DatasetBuilder(PinnedSourceBuilder):
    """Verifies the 3,000 recordings and joins them into the strings of the usual split.

    Recordings 0 to 4 of every digit and speaker are for testing (the split that upstream's
    README states), 5 to 9 for validation, 10 to 49 for training.
    """

    source_sha256 = "baa3a6dcf4da47fb3075bec71a8cefb512022cb9ae030a79a31b315f37bc67af"
    source_variable = "FSDD_ARCHIVE"
    url = _URL

    def fetch(self, folder: Path, *, advice: str) -> Path:
        """Fetch upstream's archive of the pinned commit."""
        archive = folder / "fsdd.tar.gz"
        download(self.url, archive, advice=advice)
        return archive

    def place(self, source: Path, folder: Path) -> list[Path]:
        """Put the recordings of an archive or an unpacked folder into ``folder/recordings``.

        Raises:
            DataError: when they are not there, or not all of them.
        """
        origin = source
        if source.is_file():
            origin = folder / "unpacked"
            unpack(source, origin)
        found = sorted(_recordings_folder(origin, source).glob("*.wav"))
        recordings = folder / "recordings"
        recordings.mkdir()
        for path in found:
            shutil.copyfile(path, recordings / path.name)
        if origin != source:
            shutil.rmtree(origin)
        if len(found) != _NUM_RECORDINGS:
            raise DataError(
                f"{source} holds {len(found):,} recordings, {_NUM_RECORDINGS:,} are expected. It "
                "is incomplete, or another version of the data set than the recipe is made for."
            )
        return list(recordings.iterdir())

    def make_utterances(self, source: Path, folder: Path) -> None:
        """Write the fixed strings of every split, and a manifest of single training takes."""
        takes = sorted(_takes(source / "recordings"))
        samples = {take: _read(source / "recordings" / take.file_name) for take in takes}
        for split in SPLITS:
            (folder / "wav" / split).mkdir(parents=True)
            cuts = []
            for string in fixed_strings(split, sorted({take.speaker for take in takes})):
                joined = np.concatenate(
                    [samples[Take(digit, string.speaker, index)] for digit, index in string.takes]
                )
                audio = Path("wav") / split / f"{string.utterance_id}.wav"
                write_wav(folder / audio, joined, SAMPLE_RATE_HZ)
                cuts.append(
                    utterance_cut(
                        string.utterance_id,
                        text=string.text,
                        speaker=string.speaker,
                        audio=Path("utterances") / audio,
                        num_samples=len(joined),
                        sample_rate_hz=SAMPLE_RATE_HZ,
                    )
                )
            save_cuts(cuts, folder / f"{split}{SUFFIX}")
        single = [take for take in takes if take.repetition in SPLITS["train"]]
        save_cuts(
            (
                utterance_cut(
                    take.file_name.removesuffix(".wav"),
                    text=WORDS[take.digit],
                    speaker=take.speaker,
                    audio=Path("source") / "recordings" / take.file_name,
                    num_samples=len(samples[take]),
                    sample_rate_hz=SAMPLE_RATE_HZ,
                )
                for take in single
            ),
            folder / f"train_recordings{SUFFIX}",
        )


def _recordings_folder(origin: Path, source: Path) -> Path:
    """Return the folder of recordings, which upstream's archives hold one level down."""
    for candidate in (origin, *sorted(path for path in origin.iterdir() if path.is_dir())):
        if (candidate / "recordings").is_dir():
            return candidate / "recordings"
    if any(_NAME.fullmatch(path.name) for path in origin.iterdir()):
        return origin
    raise DataError(
        f"{source} holds no folder 'recordings'. An archive of the Free Spoken Digit Dataset, or "
        "the folder it was unpacked to, is needed."
    )


def _takes(recordings: Path) -> Iterator[Take]:
    for path in recordings.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise DataError(f"{path} is not named <digit>_<speaker>_<index>.wav.")
        yield Take(int(match["digit"]), match["speaker"], int(match["index"]))


def _read(path: Path) -> np.ndarray:
    samples, sample_rate_hz = read_audio(path)
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise DataError(f"{path} is sampled at {sample_rate_hz} Hz, {SAMPLE_RATE_HZ} is expected.")
    return samples
