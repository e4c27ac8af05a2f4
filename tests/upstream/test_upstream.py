"""Upstream's own recipe, as its package ships it, launched unmodified: ``make test-upstream``.

The recipe is ``egs3/mini_an4/esp2_asr`` of PyPI's ``espnet``; its recordings lie in it. Of what it
needs, ``sph2pipe`` is not packaged anywhere: where there is none, sox stands in for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.recipe import project_root
from tests.conftest import lacks

from . import environment

RECIPE = "egs3/mini_an4/esp2_asr"
STAGES = ("create_dataset", "train_tokenizer")
# `sph2pipe -f wav -p -c 1 FILE`, which writes to standard output.
SPH2PIPE = '#!/bin/sh\nexec sox "$6" -t wav -\n'

pytestmark = [pytest.mark.upstream, pytest.mark.slow]


@pytest.fixture(scope="module")
def upstream() -> tuple[Path, Path]:
    """Return the interpreter that has upstream's framework, and where it is installed."""
    try:
        return environment.find()
    except environment.EnvironmentMissing as missing:
        lacks(str(missing))


@pytest.fixture(scope="module")
def recipe(upstream: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the recipe in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("recipes") / "of upstream" / "asr"
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(upstream[1] / RECIPE, folder, ignore=ignore))


Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def launch(
    upstream: tuple[Path, Path], recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Launch:
    """Return ``python -m launcher`` with the recipe and its interpreter."""
    programs = tmp_path_factory.mktemp("programs")
    if shutil.which("sph2pipe") is None:
        if shutil.which("sox") is None:
            pytest.fail("sph2pipe or sox is needed: apt-get install sox", pytrace=False)
        (programs / "sph2pipe").write_text(SPH2PIPE)
        (programs / "sph2pipe").chmod(0o755)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "launcher", "--recipe", str(recipe), *arguments]
        command += ["--container", "none", f"container.python={upstream[0]}"]
        done = subprocess.run(
            command,
            cwd=project_root(),
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        print(done.stdout, done.stderr, sep="\n")
        return done

    return run


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file, but for what Python leaves beside its sources."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def test_a_dry_run_plans_it_and_creates_nothing(recipe: Path, launch: Launch) -> None:
    before = digests(recipe)
    shown = launch("--dry-run", "--stages", *reversed(STAGES))
    assert shown.returncode == 0
    words = " ".join(shown.stdout.replace("\\\n", "").split())
    assert "system espnet3.systems.esp2_asr.system.ASRSystem" in words
    assert "train_tokenizer, after create_dataset" in words
    for stage, log_dir in zip(STAGES, ("data", "data/bpe_30"), strict=True):
        assert f"run.py --stages {stage} --training_config conf/training.yaml" in words
        assert f"{log_dir}/{stage}.out" in words
    assert digests(recipe) == before
    assert not [path for path in recipe.iterdir() if path.name in ("data", "exp", "logs")]


def test_what_it_refuses_is_told_in_its_own_words(launch: Launch) -> None:
    refused = launch("--dry-run", "--stages", "pack_model")
    assert refused.returncode != 0
    assert "publication config" in refused.stderr
    assert "Traceback (most recent call last)" not in refused.stderr


def test_its_stages_run_and_their_ends_are_recorded(recipe: Path, launch: Launch) -> None:
    shipped = digests(recipe)
    ran = launch("--follow", "--stages", *STAGES)
    assert ran.returncode == 0
    data = recipe / "data"
    recordings = sorted(data.glob("wav/*/*.wav"))
    assert len(recordings) == 7
    for recording in recordings:
        with wave.open(str(recording)) as audio:
            assert (audio.getframerate(), audio.getnchannels()) == (16000, 1)
            assert audio.getnframes() > 8000
    assert len((data / "manifest" / "train.tsv").read_text().splitlines()) == 4
    assert (data / "bpe_30" / "tokens.txt").is_file()
    for stage, folder in zip(STAGES, (data, data / "bpe_30"), strict=True):
        assert f"[DONE] stage: {stage}" in (folder / f"{stage}.log").read_text()
        metadata = metadata_of(folder / f"{stage}.metadata.json")
        assert (metadata["state"], metadata["stage"]) == ("done", stage)
        assert metadata["elapsed_s"] > 0
        assert metadata["job"]["exit_code"] == 0

    again = launch("--follow", "--stages", STAGES[1])
    assert again.returncode == 0
    first = metadata_of(data / "bpe_30" / "train_tokenizer1.metadata.json")
    assert first["job"]["log_inode"] == (data / "bpe_30" / "train_tokenizer1.log").stat().st_ino
    assert (data / "bpe_30" / "train_tokenizer1.out").is_file()
    assert {name: digest for name, digest in digests(recipe).items() if name in shipped} == shipped


def metadata_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
