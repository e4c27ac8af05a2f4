"""docs/resuming.md: every command of it, in its order, on the recipe that the documents make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_documents import REPOSITORY, record, write_files
from tests.docs.test_launching import type_command

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_resuming(tmp_path: Path) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    write_files("adding-a-recipe.md", folder)
    record(folder)
    document = (REPOSITORY / "docs" / "resuming.md").read_text()
    commands = [line for block in _BLOCK.findall(document) for line in block.splitlines()]
    launched, explained, resumed, status, rerun, reproduced = commands

    shown = type_command(launched, folder)
    assert re.search("^collect_stats +done", shown, re.MULTILINE)
    config = folder / "egs3" / "my_corpus" / "asr" / "conf" / "training.yaml"
    config.write_text(edited(config.read_text()))

    shown = type_command(explained, folder)
    told = shown.splitlines()[1:]
    documented = document.partition("resume of")[2].partition("```")[0].splitlines()[1:]
    assert told == documented

    shown = type_command(resumed, folder)
    for stage, state in (("create_dataset", "kept"), ("collect_stats", "done")):
        assert re.search(f"^{stage} +{state}", shown, re.MULTILINE)
    assert "train_tokenizer does not hold any more: config training." in type_command(
        status, folder
    )

    shown = type_command(rerun, folder)
    assert re.search("^  collect_stats +runs  asked for$", shown, re.MULTILINE)
    assert list(folder.glob("egs3/my_corpus/asr/exp/*/stats/collect_stats2.log"))

    assert "collect_stats, after train_tokenizer" in type_command(reproduced, folder)


def edited(training: str) -> str:
    """Return the training config with the setting that the document speaks of."""
    assert "num_mel_bins: 40" in training
    return training.replace("num_mel_bins: 40", "num_mel_bins: 64")
