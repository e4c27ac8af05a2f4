"""The documents' own commands and files, run in the order in which a reader meets them.

A block with a title is a file of that name, ``sh`` blocks are commands typed in the folder that
holds ``egs3``; ``text`` and ``json`` blocks show output.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<content>.*?)^```',
    re.DOTALL | re.MULTILINE,
)


def write_files(document: str, folder: Path) -> list[re.Match[str]]:
    """Write the document's files; return its other blocks."""
    others = []
    for block in _BLOCK.finditer((REPOSITORY / "docs" / document).read_text()):
        if not block["title"]:
            others.append(block)
            continue
        path = folder / block["title"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["content"])
    return others


def follow(document: str, folder: Path) -> list[str]:
    """Write the document's files and run its commands; return what each command printed."""
    printed = []
    for block in write_files(document, folder):
        if block["language"] == "sh":
            for line in block["content"].splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert program == "python"
                result = subprocess.run(
                    [sys.executable, *arguments],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=240,
                    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                )
                assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
                printed.append(result.stdout + result.stderr)
        else:
            assert block["language"] in {"text", "json"}, block["content"]
    return printed


def record(folder: Path) -> Path:
    """Write recordings of a language of two words, a low tone and a high one; return where."""
    recordings = folder / "egs3" / "my_corpus" / "asr" / "my_recordings"
    recordings.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tones_hz = {"LOW": 300.0, "HIGH": 2000.0}
    rows = []
    for number in range(24):
        words = [str(word) for word in rng.choice(list(tones_hz), size=3)]
        split = ("train", "train", "valid", "test")[number % 4]
        utterance = f"{'anna' if number % 2 else 'bert'}-{number:03d}"
        pieces = []
        for word in words:
            phase = 2 * np.pi * tones_hz[word] * np.arange(2400) / 8000
            pieces += [np.sin(phase), np.zeros(1200)]
        samples = 0.3 * np.concatenate(pieces) + 0.01 * rng.standard_normal(3 * 3600)
        with wave.open(str(recordings / f"{utterance}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        rows.append(f"{utterance}\t{utterance[:4]}\t{split}\t{' '.join(words)}\n")
    (recordings / "transcripts.tsv").write_text("".join(rows))
    return recordings


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with recordings."""
    folder = tmp_path_factory.mktemp("my work")
    record(folder)
    return folder


@pytest.fixture(scope="module")
def recipe_run(workplace: Path) -> list[str]:
    return follow("adding-a-recipe.md", workplace)


@pytest.mark.slow
def test_adding_a_recipe(workplace: Path, recipe_run: list[str]) -> None:
    dry_run, launched, variant = recipe_run
    assert "[DRY RUN] would run stage: infer" in dry_run
    assert re.search(r"measure\s+done", launched)
    assert re.search(r"WER", launched)
    exp_dir = workplace / "egs3" / "my_corpus" / "asr" / "exp"
    assert (exp_dir / "training" / "inference" / "test" / "hyp.txt").is_file()
    assert re.search(r"infer\s+done", variant)
    assert (exp_dir / "training_narrow" / "inference" / "test" / "hyp.txt").is_file()
    metadata = json.loads((exp_dir / "training_narrow" / "train.metadata.json").read_text())
    model = metadata["configs"]["training"]["resolved"]["model"]
    assert (model["dim"], model["num_heads"]) == (32, 2)


@pytest.mark.slow
def test_adding_a_stage(workplace: Path, recipe_run: list[str]) -> None:
    (launched,) = follow("adding-a-stage.md", workplace)
    assert re.search(r"count_words\s+done", launched)
    data_dir = workplace / "egs3" / "my_corpus" / "asr" / "data"
    counts = dict(
        line.split("\t")[::-1] for line in (data_dir / "word_counts.tsv").read_text().splitlines()
    )
    assert counts.keys() == {"LOW", "HIGH"}
    assert (data_dir / "count_words.metadata.json").is_file()
