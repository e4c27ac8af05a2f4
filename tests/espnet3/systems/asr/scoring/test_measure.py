"""The measure stage: results, reuse, and texts that do not match."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from espnet3.utils.errors import ConfigError, DataError


def write_texts(configs, hypotheses, references=None, test_name="test"):
    folder = Path(configs["metrics"]["inference_dir"]) / test_name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hyp.txt").write_text(hypotheses)
    (folder / "ref.txt").write_text(references or "u1 one two\nu2 three\n")
    return folder


def metrics_json(configs):
    return json.loads((Path(configs["metrics"]["inference_dir"]) / "metrics.json").read_text())


def test_rates_and_files(small_system, small_configs):
    write_texts(small_configs, "u1 one too\nu2\n")
    figures = small_system("metrics").measure()
    assert figures == {"test": {"WER": 66.667, "CER": pytest.approx(100 * 6 / 12)}}
    content = metrics_json(small_configs)["tests"]["test"]["WER"]
    assert (content["substitutions"], content["deletions"], content["insertions"]) == (1, 1, 0)
    text = (Path(small_configs["metrics"]["inference_dir"]) / "metrics.txt").read_text()
    assert re.search(r"test WER +66\.67", text)
    assert "REF:  one TWO\nHYP:  one TOO\nEval:     S" in text


def test_missing_hypotheses_are_made_first(small_system, small_configs):
    system = small_system("training", "inference", "metrics")
    figures = system.measure()
    assert system.calls[0] == "infer"
    assert set(figures["test"]) == {"WER", "CER"}
    speakers = metrics_json(small_configs)["tests"]["test"]["WER"]["by_speaker"]
    assert set(speakers) == {"anna", "bert"}


def test_hypotheses_of_other_settings_are_not_scored(small_system, small_configs):
    small_system("training", "inference", "metrics").measure()
    small_configs["inference"]["decoding"]["method"] = "greedy"
    small_system("training", "inference", "metrics").measure()
    folder = Path(small_configs["inference"]["inference_dir"]) / "test"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["made_from"]["decoding"]["method"] == "greedy"


def test_unchanged_is_kept_and_changes_are_named(small_system, small_configs, caplog):
    caplog.set_level("INFO")
    write_texts(small_configs, "u1 one too\nu2 three\n")
    first = small_system("metrics").measure()
    caplog.clear()
    assert small_system("metrics").measure() == first
    assert "Kept:" in caplog.text
    write_texts(small_configs, "u1 one two\nu2 three\n")
    caplog.clear()
    assert small_system("metrics").measure()["test"]["WER"] == 0
    assert "texts.test/hyp.txt" in caplog.text
    small_configs["metrics"]["bootstrap_samples"] = 50
    caplog.clear()
    small_system("metrics").measure()
    assert "bootstrap_samples: 1000 -> 50" in caplog.text


def test_every_test_set_found_is_scored(small_system, small_configs):
    write_texts(small_configs, "u1 one two\nu2 three\n", test_name="clean")
    write_texts(small_configs, "u1 one\nu2 three\n", test_name="other")
    figures = small_system("metrics").measure()
    assert figures["clean"]["WER"] == 0
    assert figures["other"]["WER"] == 33.333


def test_what_a_killed_infer_left_is_not_scored(small_system, small_configs):
    write_texts(small_configs, "u1 one two\nu2 three\n", test_name="clean")
    write_texts(small_configs, "u1 one\n", test_name=".clean.1a2b3c4d.partial")
    assert set(small_system("metrics").measure()) == {"clean"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hyp.txt", b"u1 \xff\xfe\n", "hyp.txt is no UTF-8 text"),
        ("hyp.jsonl", b'{"utt_id": "u1"}\n{"utt_\n', "hyp.jsonl, line 2 is not what infer writes"),
        ("hyp.jsonl", b"[1]\n", "hyp.jsonl, line 1 is not what infer writes"),
        ("hyp.jsonl", b"\xff\n", "hyp.jsonl is no UTF-8 text"),
    ],
)
def test_damaged_files_are_named(small_system, small_configs, name, content, message):
    folder = write_texts(small_configs, "u1 one two\nu2 three\n")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        small_system("metrics").measure()


def test_a_text_may_hold_any_separator_but_a_newline(small_system, small_configs):
    text = "u1 one\u2028two\nu2 three"
    write_texts(small_configs, text, references=text)
    assert small_system("metrics").measure()["test"]["WER"] == 0


def test_a_changed_metric_scores_anew(small_system, small_configs, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO")
    write_texts(small_configs, "u1 one\nu2 three\n")
    module = tmp_path / "own_metrics.py"
    code = "from espnet3.systems.asr.scoring import WER\n\n\nclass Own(WER):\n    pass\n"
    module.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    small_configs["metrics"]["metrics"] = [{"metric": {"_target_": "own_metrics.Own"}}]
    small_system("metrics").measure()
    small_system("metrics").measure()
    assert "Kept:" in caplog.text
    caplog.clear()
    module.write_text(f"{code}    # changed\n")
    small_system("metrics").measure()
    assert "code.Own" in caplog.text


def test_ids_that_do_not_match_are_listed(small_system, small_configs):
    write_texts(small_configs, "u1 one two\nu9 three\n")
    with pytest.raises(DataError, match=r"1 without a hypothesis: u2; 1 without a reference: u9"):
        small_system("metrics").measure()
    assert not (Path(small_configs["metrics"]["inference_dir"]) / "metrics.json").exists()


def test_an_id_that_stands_twice(small_system, small_configs):
    write_texts(small_configs, "u1 one two\nu2 three\nu1 one\n")
    with pytest.raises(DataError, match=r"hyp\.txt, line 3: 'u1'"):
        small_system("metrics").measure()


def test_no_hypotheses_and_no_inference_config(small_system):
    with pytest.raises(DataError, match="--inference_config"):
        small_system("metrics").measure()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "'metrics' is empty"),
        ([{"metric": {"clean_types": None}}], "has no class"),
        ([{"metric": {"_target_": "espnet3.systems.asr.scoring.WERR"}}], "WERR"),
        ([{"metric": {"_target_": "collections.Counter"}}], "is no metric"),
        (
            [{"metric": {"_target_": "espnet3.systems.asr.scoring.WER", "clean_types": ["lower"]}}],
            "Did you mean 'lowercase'",
        ),
        (
            [{"metric": {"_target_": "espnet3.systems.asr.scoring.WER", "clean": True}}],
            "unexpected keyword argument 'clean'",
        ),
        ([{"metric": {"_target_": "espnet3.systems.asr.scoring.WER"}}] * 2, "two metrics"),
        ([{"metrik": {}}], "unknown key"),
    ],
)
def test_metrics_that_make_no_sense(small_system, small_configs, metrics, message):
    write_texts(small_configs, "u1 one two\nu2 three\n")
    small_configs["metrics"]["metrics"] = metrics
    with pytest.raises(ConfigError, match=re.escape(message)):
        small_system("metrics").measure()


def test_a_name_and_other_texts_of_ones_own(small_system, small_configs):
    folder = write_texts(small_configs, "u1 one too\nu2 three\n")
    (folder / "rescored.txt").write_text("u1 ONE TWO\nu2 three\n")
    small_configs["metrics"]["metrics"] = [
        {
            "metric": {
                "_target_": "espnet3.systems.asr.scoring.WER",
                "clean_types": ["lowercase"],
                "name": "WER_rescored",
            },
            "inputs": {"hyp": "rescored"},
        }
    ]
    assert small_system("metrics").measure() == {"test": {"WER_rescored": 0.0}}


def test_torch_is_not_imported():
    code = "import sys, espnet3.systems.asr.scoring\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
