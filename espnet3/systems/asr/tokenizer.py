"""SentencePiece tokens for CTC: ids, training, and the ``train_tokenizer`` stage.

Id 0 is always CTC's blank and id 1 the unknown token, so a token's id is the index of its
output unit in the model.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece

from espnet3.utils.errors import CheckpointError, ConfigError, DataError
from espnet3.utils.files import write_atomically
from espnet3.utils.reuse import Kept, Reuse

if TYPE_CHECKING:
    from espnet3.systems.asr.training_config import TrainingConfig
    from espnet3.systems.base.system import BaseSystem

logger = logging.getLogger(__name__)

BLANK_ID = 0
UNKNOWN_ID = 1
UNKNOWN = "<unk>"
_WORD_START = "\u2581"  # SentencePiece's mark of a word's beginning
_WHOLE_VOCABULARY = ("char", "word")
_ANY_SIZE = 8000  # asked for by SentencePiece, without effect when it uses the whole vocabulary


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.pieces: list[str] = [
            self._processor.id_to_piece(index) for index in range(self._processor.vocab_size())
        ]
        # A word model makes every piece but blank and unknown a whole word; so does no other.
        self._is_word_model = len(self.pieces) > 2 and all(
            piece.startswith(_WORD_START) and len(piece) > 1 for piece in self.pieces[2:]
        )

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Return the tokenizer that ``train_tokenizer`` left in ``folder``.

        Raises:
            CheckpointError: there is none, or its file is damaged.
        """
        path = Path(folder) / "tokenizer.model"
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            raise CheckpointError(
                f"There is no tokenizer in {folder}. Run the stage train_tokenizer first."
            ) from None
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} is not a SentencePiece model that can be read. Remove it and run the "
                "stage train_tokenizer again."
            ) from error

    @property
    def vocab_size(self) -> int:
        """Number of tokens, blank and unknown counted."""
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``; what has no token becomes :data:`UNKNOWN_ID`."""
        if self._is_word_model:
            # SentencePiece joins neighbouring unknown words into one token: go word by word.
            return [index for word in text.split() for index in self._processor.encode(word)]
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; an unknown token reads ``<unk>``, blanks are dropped."""
        kept = [int(index) for index in ids if index != BLANK_ID]
        if self._is_word_model:
            return " ".join(self.pieces[index].removeprefix(_WORD_START) for index in kept)
        return self._processor.decode(kept)


def train_tokenizer(
    texts: Iterable[str],
    *,
    model_type: str,
    vocab_size: int,
    save_path: Path,
    character_coverage: float = 1.0,
) -> Tokenizer:
    """Train a SentencePiece model on ``texts`` and write it to the folder ``save_path``.

    The text is taken as it is (no Unicode normalisation), so that what is decoded can be
    compared with the transcripts letter by letter.

    Args:
        texts: one transcript each.
        model_type: ``bpe``, ``unigram``, ``char`` or ``word``.
        vocab_size: number of tokens, blank and unknown counted. 0 takes every character or word
            there is; ``bpe`` and ``unigram`` need a number.
        save_path: folder that gets ``tokenizer.model`` and ``tokens.txt`` (a token a line).
        character_coverage: share of the characters that get a token; a little below 1 (0.9995)
            suits scripts with thousands of them. Has no bearing on ``word``.

    Raises:
        ConfigError: the ``vocab_size`` does not fit the corpus.
        DataError: there is no text.
    """
    lines = [text for text in texts if text.strip()]
    if not lines:
        raise DataError(
            "The training transcripts are empty: there is nothing to train a tokenizer on. "
            "Check the text of the dataset's training split."
        )
    model = _train(lines, model_type, vocab_size, character_coverage)
    tokenizer = Tokenizer(model)
    if vocab_size not in (0, tokenizer.vocab_size):
        raise _too_large(model_type, vocab_size, tokenizer.vocab_size)
    write_atomically(save_path / "tokenizer.model", model)
    write_atomically(save_path / "tokens.txt", "\n".join(tokenizer.pieces) + "\n")
    return tokenizer


def run_train_tokenizer(system: BaseSystem) -> dict[str, Any]:
    """Train the tokenizer of ``system.training_config`` on the training transcripts."""
    from espnet3.systems.asr.training_config import checked_training_config

    config = checked_training_config(system)
    settings = asdict(config.tokenizer)
    save_path = Path(settings.pop("save_path"))
    texts = _training_texts(system, config)
    transcripts_sha = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    reuse = Reuse(
        save_path / ".train_tokenizer.done.json", {"tokenizer": settings, "text": transcripts_sha}
    )
    reasons = reuse.reasons_to_redo()
    if not reasons:
        tokenizer = Tokenizer.load(save_path)
        logger.info("Kept: the tokenizer, settings and text unchanged: %s", save_path)
        return Kept(vocab_size=tokenizer.vocab_size)
    logger.info("Training a %s tokenizer: %s", settings["model_type"], "; ".join(reasons))
    reuse.forget()
    tokenizer = train_tokenizer(texts, save_path=save_path, **settings)
    reuse.mark_done([save_path / "tokenizer.model", save_path / "tokens.txt"])
    logger.info(
        "Tokenizer of %d tokens from %d transcripts: %s",
        tokenizer.vocab_size,
        len(texts),
        save_path / "tokenizer.model",
    )
    return {"vocab_size": tokenizer.vocab_size}


def _train(lines: list[str], model_type: str, vocab_size: int, character_coverage: float) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size or _ANY_SIZE,
            use_all_vocab=vocab_size == 0,
            # Dropped characters would turn the words that hold them into other words.
            character_coverage=1.0 if model_type == "word" else character_coverage,
            pad_id=BLANK_ID,
            pad_piece="<blank>",
            unk_id=UNKNOWN_ID,
            unk_piece=UNKNOWN,
            unk_surface=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            normalization_rule_name="identity",
            # Longer lines would be skipped without a word. 2**30 is the most that is allowed.
            max_sentence_length=1 << 30,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(error, model_type, vocab_size) from error
    return model.getvalue()


def _explained(error: RuntimeError, model_type: str, vocab_size: int) -> Exception:
    message = str(error)
    if largest := re.search(r"set it to a value <= (\d+)", message):
        return _too_large(model_type, vocab_size, int(largest[1]))
    if required := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return ConfigError(
            f"tokenizer.vocab_size is {vocab_size}, but the characters of the training "
            f"transcripts alone need {required[1]}. Set it to at least that, or lower "
            "tokenizer.character_coverage."
        )
    return ConfigError(f"SentencePiece refused the settings of the section tokenizer: {message}")


def _too_large(model_type: str, vocab_size: int, largest: int) -> ConfigError:
    advice = ", or to 0 for all" if model_type in _WHOLE_VOCABULARY else ""
    return ConfigError(
        f"tokenizer.vocab_size is {vocab_size}, but the training transcripts give "
        f"'{model_type}' at most {largest} tokens. Set it to {largest} or less{advice}."
    )


def _training_texts(system: BaseSystem, config: TrainingConfig) -> list[str]:
    """Return the transcripts of the training references, making the data where it is missing."""
    from espnet3.data import transcript
    from espnet3.systems.asr.data.datasets import load_split

    return [
        transcript(cut) for cut in load_split(config, "train", create=system.create_dataset).cuts
    ]
