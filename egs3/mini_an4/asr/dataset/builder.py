"""From AN4's archive of NIST SPHERE files to WAV and manifests."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from espnet3.data.archives import unpack
from espnet3.data.audio import read_audio, write_wav
from espnet3.data.manifests import SUFFIX, save_cuts, utterance_cut
from espnet3.data.pairing import pair, unique
from espnet3.data.pinned import PinnedSourceBuilder
from espnet3.utils.errors import DataError

from .source import ARCHIVE_SHA256, archive_of, download_wheel, verify

SAMPLE_RATE_HZ = 16000
_FOLDERS = {"train": "an4_clstk", "test": "an4test_clstk"}
_KEPT = ("LICENSE", "README", "etc/*.transcription", "etc/*.fileids", "wav/*/*/*.sph")
# Training lines carry sentence marks, test lines do not: `<s> YES </s> (an251-fash-b)`.
_LINE = re.compile(r"(?:<s>\s+)?(?P<text>.*?)\s*(?:</s>\s*)?\((?P<id>[^()\s]+)\)")


class DatasetBuilder(PinnedSourceBuilder):
    """Verifies AN4's files and rewrites the utterances as 16-bit WAV.

    ``create_dataset.source`` may be ESPnet's wheel, the archive from it, or the unpacked folder.
    """

    source_sha256 = "17ff12523403974e1dd0cd89eff06ff435a8dc5a610ce3196421c2e3fc18a3ec"
    source_variable = "MINI_AN4_ARCHIVE"

    def fetch(self, folder: Path, *, advice: str) -> Path:
        """Fetch ESPnet's wheel from the package registry that pip is set up for."""
        return download_wheel(folder, advice=advice)

    def place(self, source: Path, folder: Path) -> list[Path]:
        """Put AN4's transcripts and audio into ``folder/an4``.

        Raises:
            DataError: when they are not there, or an archive is not the pinned one.
        """
        unpacked = source
        if source.is_file():
            scratch = folder / "scratch"
            scratch.mkdir()
            archive = archive_of(source, scratch) if source.suffix == ".whl" else source
            verify(archive, ARCHIVE_SHA256)
            unpacked = scratch / "unpacked"
            unpack(archive, unpacked)
        places = (unpacked, unpacked / "an4", unpacked / "downloads" / "an4")
        origin = next((place for place in places if (place / "etc").is_dir()), unpacked)
        placed = []
        for pattern in _KEPT:
            for path in origin.glob(pattern):
                destination = folder / "an4" / path.relative_to(origin)
                destination.parent.mkdir(parents=True, exist_ok=True)
                placed.append(Path(shutil.copyfile(path, destination)))
        if not placed:
            raise DataError(
                f"{source} holds no AN4 data (an4/etc, an4/wav). The wheel espnet==202611, the "
                "archive in it, or the folder that was unpacked from it is needed."
            )
        if source.is_file():
            shutil.rmtree(scratch)
        return placed

    def make_utterances(self, source: Path, folder: Path) -> None:
        """Write WAV files and the manifests of ``train`` and ``test``."""
        an4 = source / "an4"
        for split, audio_folder in _FOLDERS.items():
            transcription = an4 / "etc" / f"an4_{split}.transcription"
            texts = unique(_transcripts(transcription), name=str(transcription))
            audio = {path.stem: path for path in (an4 / "wav" / audio_folder).glob("*/*.sph")}
            (folder / "wav" / split).mkdir(parents=True)
            cuts = []
            for utterance_id, (text, path) in pair(texts, audio, name=split).items():
                samples, sample_rate_hz = read_audio(path)
                if sample_rate_hz != SAMPLE_RATE_HZ:
                    raise DataError(
                        f"{path} is sampled at {sample_rate_hz} Hz, {SAMPLE_RATE_HZ} is expected."
                    )
                wav = Path("wav") / split / f"{utterance_id}.wav"
                write_wav(folder / wav, samples, SAMPLE_RATE_HZ)
                cuts.append(
                    utterance_cut(
                        utterance_id,
                        text=text,
                        speaker=path.parent.name,
                        audio=Path("utterances") / wav,
                        num_samples=len(samples),
                        sample_rate_hz=SAMPLE_RATE_HZ,
                    )
                )
            save_cuts(cuts, folder / f"{split}{SUFFIX}")


def _transcripts(transcription: Path) -> Iterator[tuple[str, str]]:
    """Yield utterance id and words of each line."""
    if not transcription.is_file():
        raise DataError(f"There are no transcripts {transcription}. Get the archive anew.")
    for number, line in enumerate(transcription.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{transcription}, line {number}: 'WORDS (id)' expected, not: {line}")
        yield match["id"], match["text"]
