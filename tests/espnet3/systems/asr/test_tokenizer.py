"""The SentencePiece tokenizer: ids, text, and settings that do not fit."""

import gzip
import re
from pathlib import Path

import pytest

from espnet3.systems.asr.tokenizer import BLANK_ID, UNKNOWN_ID, Tokenizer, train_tokenizer
from espnet3.utils.errors import CheckpointError, ConfigError, DataError

TEXTS = ["ONE TWO THREE", "FOUR FIVE SIX", "ZERO NINE OH ONE", "SEVEN EIGHT TWO"] * 3


def train(folder, model_type="bpe", vocab_size=30, texts=TEXTS, **settings):
    return train_tokenizer(
        texts, model_type=model_type, vocab_size=vocab_size, save_path=folder, **settings
    )


@pytest.mark.parametrize(
    ("model_type", "vocab_size"),
    [("bpe", 30), ("unigram", 20), ("char", 0), ("word", 0), ("char", 12), ("word", 5)],
)
def test_ids_begin_with_blank_and_unknown_and_files_say_the_same(tmp_path, model_type, vocab_size):
    tokenizer = train(tmp_path / "tok", model_type, vocab_size)
    assert tokenizer.pieces[:2] == ["<blank>", "<unk>"]
    assert (tmp_path / "tok" / "tokens.txt").read_text().splitlines() == tokenizer.pieces
    assert Tokenizer.load(tmp_path / "tok").pieces == tokenizer.pieces
    assert tokenizer.vocab_size == len(tokenizer.pieces)
    assert vocab_size in (0, tokenizer.vocab_size)


@pytest.mark.parametrize(
    ("model_type", "vocab_size"), [("bpe", 30), ("unigram", 20), ("char", 0), ("word", 0)]
)
def test_every_training_text_comes_back(tmp_path, model_type, vocab_size):
    tokenizer = train(tmp_path, model_type, vocab_size)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert BLANK_ID not in ids
        assert UNKNOWN_ID not in ids
        assert max(ids) < tokenizer.vocab_size


def test_text_is_not_normalised(tmp_path):
    # Under NFKC, SentencePiece's usual rule, the ligature would come back as "fi".
    texts = ["ﬁne Straße ½", "e\u0301te\u0301"]
    tokenizer = train(tmp_path, "char", 0, texts)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


def test_word_tokens_are_all_the_words(tmp_path):
    tokenizer = train(tmp_path, "word", 0, ["b a", "c", "b éa"])
    assert sorted(piece.lstrip("▁") for piece in tokenizer.pieces[2:]) == ["a", "b", "c", "éa"]


def test_unknown_words_stay_words(tmp_path):
    tokenizer = train(tmp_path, "word", 0)
    ids = tokenizer.encode("ONE DOG CAT TWO")
    assert ids.count(UNKNOWN_ID) == 2
    assert tokenizer.decode(ids) == "ONE <unk> <unk> TWO"


def test_unknown_characters_read_unk(tmp_path):
    tokenizer = train(tmp_path, "char", 0)
    assert tokenizer.decode(tokenizer.encode("ONE TQO")) == "ONE T<unk>O"


def test_long_transcripts_are_not_dropped(tmp_path):
    long = " ".join(["ONE"] * 2000) + " ELEVENTH"
    assert "▁ELEVENTH" in train(tmp_path, "word", 0, ["TWO", long]).pieces


@pytest.mark.parametrize("model_type", ["bpe", "unigram", "char", "word"])
def test_too_large_a_vocabulary_names_the_largest_which_works(tmp_path, model_type):
    with pytest.raises(ConfigError, match="at most") as caught:
        train(tmp_path / "no", model_type, 5000)
    largest = int(re.search(r"at most (\d+)", str(caught.value))[1])
    assert not (tmp_path / "no").exists()
    assert train(tmp_path / "yes", model_type, largest).vocab_size == largest


def test_too_small_a_vocabulary_names_the_smallest_which_works(tmp_path):
    with pytest.raises(ConfigError, match="alone need") as caught:
        train(tmp_path, "bpe", 5)
    smallest = int(re.search(r"alone need (\d+)", str(caught.value))[1])
    assert train(tmp_path, "bpe", smallest).vocab_size == smallest


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_empty_transcripts(tmp_path, texts):
    with pytest.raises(DataError, match="transcripts are empty"):
        train(tmp_path, texts=texts)


def test_a_missing_tokenizer_names_the_stage(tmp_path):
    with pytest.raises(CheckpointError, match="train_tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path):
    train(tmp_path)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        Tokenizer.load(tmp_path)


def test_the_stage_makes_the_data_first_and_keeps_an_unchanged_tokenizer(
    small_system, small_configs, caplog
):
    caplog.set_level("INFO")
    system = small_system("training")
    assert system.train_tokenizer() == {"vocab_size": 10}  # 7 letters, blank, unknown, word start
    assert system.calls == ["create_dataset"]
    assert "create_dataset runs first" in caplog.text
    caplog.clear()
    assert small_system("training").train_tokenizer() == {"vocab_size": 10}
    assert "Kept:" in caplog.text


def test_the_stage_trains_again_when_settings_or_transcripts_change(
    small_system, small_configs, caplog
):
    caplog.set_level("INFO")
    small_system("training").train_tokenizer()
    small_configs["training"]["tokenizer"]["vocab_size"] = 8
    assert small_system("training").train_tokenizer() == {"vocab_size": 8}
    assert "tokenizer.vocab_size: 0 -> 8" in caplog.text
    manifest = Path(small_configs["training"]["data_dir"]) / "train.cuts.jsonl.gz"
    content = gzip.decompress(manifest.read_bytes()).replace(b"THREE", b"SEVEN")
    manifest.write_bytes(gzip.compress(content))
    caplog.clear()
    assert small_system("training").train_tokenizer() == {"vocab_size": 8}
    assert "text: " in caplog.text
    assert "Kept:" not in caplog.text


def test_a_vocabulary_that_does_not_fit_leaves_no_tokenizer(small_system, small_configs):
    small_configs["training"]["tokenizer"] |= {"model_type": "bpe", "vocab_size": 500}
    with pytest.raises(ConfigError, match="at most"):
        small_system("training").train_tokenizer()
    assert not Path(small_configs["training"]["tokenizer"]["save_path"]).exists()
