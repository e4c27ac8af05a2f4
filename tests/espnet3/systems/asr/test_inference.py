"""The infer stage: what it writes, when it decodes again, and what bad input gets."""

import json
import subprocess
import sys
from pathlib import Path

import jiwer
import pytest
import torch

from espnet3.utils.errors import CheckpointError, ConfigError, DataError

STAGES = ("training", "inference")


def files(configs, test_name="test"):
    return Path(configs["inference"]["inference_dir"]) / test_name


def checkpoint(configs):
    return Path(configs["inference"]["exp_dir"]) / "checkpoints" / "step00000001.ckpt"


def test_it_builds_what_is_missing_and_writes_every_file(small_system, small_configs, caplog):
    caplog.set_level("INFO")
    system = small_system(*STAGES)
    figures = system.infer()
    assert system.calls == ["infer", "train", "create_dataset"]
    assert "train runs first" in caplog.text
    assert "create_dataset runs first" in caplog.text

    folder = files(small_configs)
    hypotheses = (folder / "hyp.txt").read_text().splitlines()
    references = (folder / "ref.txt").read_text().splitlines()
    assert references == ["anna-1 ONE TWO", "anna-2 THREE ONE TWO", "bert-1 TWO"]
    assert [line.split()[0] for line in hypotheses] == ["anna-1", "anna-2", "bert-1"]

    rows = [json.loads(line) for line in (folder / "hyp.jsonl").read_text().splitlines()]
    assert [f"{row['utt_id']} {row['text']}".rstrip() for row in rows] == hypotheses
    assert [row["audio_s"] for row in rows] == [0.5, 0.4, 0.3]
    assert [row["speaker"] for row in rows] == ["anna", "anna", "bert"]
    assert all(len(row["tokens"]) == len(row["token_starts_s"]) for row in rows)

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["audio_s"] == pytest.approx(1.2)
    assert summary["RTF"] == pytest.approx(summary["elapsed_s"] / 1.2, rel=0.01)
    assert sum(row["decode_s"] for row in rows) <= summary["elapsed_s"]
    assert summary["device"] == "cpu"
    assert summary["made_from"]["decoding"]["beam_size"] == 4
    assert figures == {"test": {"WER": summary["WER"], "RTF": summary["RTF"]}}
    texts = [line.partition(" ")[2] for line in references]
    expected = 100 * jiwer.wer(texts, [row["text"] for row in rows])
    assert summary["WER"] == pytest.approx(expected, abs=1e-3)


def test_unchanged_is_kept_and_said_so(small_system, small_configs, caplog):
    small_system(*STAGES).infer()
    before = (files(small_configs) / "hyp.jsonl").stat()
    caplog.set_level("INFO")
    figures = small_system(*STAGES).infer()
    assert "Kept:" in caplog.text
    assert (files(small_configs) / "hyp.jsonl").stat().st_ino == before.st_ino
    assert figures["test"]["RTF"] > 0


def beam(configs):
    configs["inference"]["decoding"]["beam_size"] = 5


def method(configs):
    configs["inference"]["decoding"]["method"] = "greedy"


def weights(configs):
    path = checkpoint(configs)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["model.output.bias"] += 1
    torch.save(content, path)


def audio(configs):
    path = Path(configs["inference"]["data_dir"]) / "bert-1.wav"
    content = bytearray(path.read_bytes())
    content[-200:] = bytes(200)
    path.write_bytes(content)


def lost_file(configs):
    (files(configs) / "hyp.txt").unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (beam, "decoding.beam_size: 4 -> 5"),
        (method, "decoding.method: prefix_beam -> greedy"),
        (weights, "checkpoint: "),
        (audio, "data: "),
        (lost_file, "missing or altered: hyp.txt"),
    ],
)
def test_a_change_is_decoded_again_and_named(small_system, small_configs, caplog, change, reason):
    small_system(*STAGES).infer()
    change(small_configs)
    caplog.set_level("INFO")
    small_system(*STAGES).infer()
    assert reason in caplog.text
    assert "Kept:" not in caplog.text
    caplog.clear()
    small_system(*STAGES).infer()
    assert "Kept:" in caplog.text


def test_batches_do_not_change_the_text(small_system, small_configs):
    small_system(*STAGES).infer()
    together = (files(small_configs) / "hyp.txt").read_text()
    small_configs["inference"]["batch_size"] = 1
    small_system("inference").infer()
    assert (files(small_configs) / "hyp.txt").read_text() == together
    assert len(together) > len("anna-1\nanna-2\nbert-1\n")  # the model does say something


def test_nbest_hypotheses_are_listed_best_first(small_system, small_configs):
    small_configs["inference"]["decoding"]["nbest"] = 3
    small_system(*STAGES).infer()
    rows = (files(small_configs) / "hyp.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        scores = [each["score"] for each in row["nbest"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert row["nbest"][0] == {"text": row["text"], "score": row["score"]}


def test_a_named_checkpoint_that_is_not_there_names_those_that_are(small_system, small_configs):
    small_system(*STAGES).infer()
    before = (files(small_configs) / "hyp.txt").read_bytes()
    small_configs["inference"]["model"]["checkpoint"] = "exp/small/checkpoints/step00000009.ckpt"
    with pytest.raises(CheckpointError, match=r"step00000009.*step00000001\.ckpt"):
        small_system(*STAGES).infer()
    assert (files(small_configs) / "hyp.txt").read_bytes() == before


def test_a_named_checkpoint_counts_from_the_recipe(small_system, small_configs):
    small_configs["inference"]["model"]["checkpoint"] = "exp/small/checkpoints/step00000001.ckpt"
    system = small_system(*STAGES)
    system.train()
    system.infer()
    assert files(small_configs).is_dir()
    assert system.calls.count("train") == 1


def test_without_a_model_and_a_training_config_it_says_how_to_get_one(small_system):
    with pytest.raises(CheckpointError, match="--training_config"):
        small_system("inference").infer()


def test_a_model_of_another_experiment_is_not_trained(small_system, small_configs):
    small_configs["inference"]["exp_dir"] += "-other"
    system = small_system(*STAGES)
    with pytest.raises(CheckpointError, match="exp_dir is another"):
        system.infer()
    assert "train" not in system.calls


def test_a_missing_audio_file_leaves_nothing_behind(small_system, small_configs):
    system = small_system(*STAGES)
    system.create_dataset()
    path = Path(small_configs["training"]["data_dir"]) / "anna-2.wav"
    path.unlink()
    with pytest.raises(DataError, match=r"anna-2\.wav"):
        system.infer()
    assert not files(small_configs).exists()


def test_a_corrupt_audio_file_is_named(small_system, small_configs):
    system = small_system(*STAGES)
    system.create_dataset()
    path = Path(small_configs["training"]["data_dir"]) / "anna-2.wav"
    path.write_bytes(b"RIFF but no more than that")
    with pytest.raises(DataError, match=r"anna-2\.wav"):
        system.infer()


def test_an_empty_test_set_is_named(small_system, small_configs):
    small_configs["inference"]["dataset"]["test"] = [
        {"name": "silence", "data_src_args": {"split": "nothing"}}
    ]
    with pytest.raises(DataError, match="'silence' is empty"):
        small_system(*STAGES).infer()


def test_no_test_set_at_all(small_system, small_configs):
    small_configs["inference"]["dataset"]["test"] = []
    with pytest.raises(DataError, match="names no test set"):
        small_system(*STAGES).infer()


def test_a_diverged_model_is_told_of(small_system, small_configs):
    system = small_system(*STAGES)
    system.train()
    content = torch.load(checkpoint(small_configs), weights_only=True)
    content["state_dict"]["model.output.bias"] *= float("nan")
    torch.save(content, checkpoint(small_configs))
    with pytest.raises(CheckpointError, match="diverged"):
        system.infer()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("decoding", {"method": "gredy"}, "Did you mean 'greedy'"),
        ("decoding", {"beam_size": 0}, "at least 1"),
        ("decoding", {"beam_size": 2, "nbest": 3}, "at most 2"),
        ("decoding", {"method": "greedy", "nbest": 2}, "at most 1"),
        ("decoding", {"beam": 3}, "unknown key 'decoding.beam'"),
        ("decoding", {"beam_size": "wide"}, "'decoding.beam_size' is 'wide'"),
        ("model", {"device": "quantum"}, "'model.device' is 'quantum'"),
        ("dataset", {"test": [{"name": "../up"}]}, "name '../up'"),
        ("dataset", {"test": [{"data_src_args": {}}]}, "name ''"),
        ("dataset", {"test": [{"name": "a"}, {"name": "a"}]}, "more than once"),
    ],
)
def test_settings_that_make_no_sense(small_system, small_configs, section, values, message):
    small_configs["inference"][section] = values
    with pytest.raises(ConfigError, match=message):
        small_system(*STAGES).infer()


@pytest.mark.slow
def test_lightning_is_not_imported():
    code = (
        "import sys, espnet3.systems.asr.inference, espnet3.systems.asr.decoding.recognise\n"
        "import espnet3.systems.asr.splits, espnet3.systems.asr.model\n"
        "assert 'torch' in sys.modules\n"
        "assert not [name for name in sys.modules if 'lightning' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
