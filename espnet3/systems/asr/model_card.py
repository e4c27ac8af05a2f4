"""The README of a packed model: what it is, how good it is, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet3.systems.asr.inference_config import PackConfig
    from espnet3.systems.asr.training_config import TrainingConfig


@dataclass(frozen=True)
class Card:
    """What the card tells.

    Attributes:
        title: its headline.
        settings: what the publication config says.
        config: what the model was trained with.
        parameters: number of weights.
        vocab_size: number of tokens.
        checkpoint_sha256: of ``model.ckpt`` in the archive.
        metrics: content of each ``metrics.json``, by the folder that it lies in.
        git: state of the code, as :func:`espnet3.utils.metadata.git_state` gives it.
    """

    title: str
    settings: PackConfig
    config: TrainingConfig
    parameters: int
    vocab_size: int
    checkpoint_sha256: str
    metrics: Mapping[str, Any]
    git: Mapping[str, Any] | None


def model_card(card: Card) -> str:
    """Return the card as Markdown, headed by the YAML that model hubs read."""
    parts = [
        _front_matter(card.settings),
        f"# {card.title}",
        card.settings.description,
        _model(card),
        "## Error rates",
        _rates(card.metrics),
        "## Use",
        _USE,
        "## Where it comes from",
        _origin(card),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


_USE = """
```python
from pathlib import Path

from espnet3.systems.asr.packing import load_packed_recogniser

recogniser = load_packed_recogniser(Path("this archive.tar.gz"))
```

`MANIFEST.json` gives the SHA-256 of every file; loading checks them.
"""


def _front_matter(settings: PackConfig) -> str:
    import yaml

    content: dict[str, Any] = {"tags": ["automatic-speech-recognition", "ctc"]}
    if settings.language:
        content["language"] = settings.language
    if settings.license:
        content["license"] = settings.license
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"


def _model(card: Card) -> str:
    model, features = card.config.model, card.config.features
    return (
        f"A {model.encoder} encoder ({model.num_layers} layers of {model.dim}, "
        f"{card.parameters / 1e6:.2f} M parameters) with CTC over {card.vocab_size} "
        f"{card.config.tokenizer.model_type} tokens. It takes audio at "
        f"{features.sample_rate_hz} Hz, as {features.num_mel_bins} log-mel bins."
    )


def _rates(metrics: Mapping[str, Any]) -> str:
    lines = [
        "| inference | test set | metric | % | 95 % interval | reference tokens |",
        "|---|---|---|---|---|---|",
    ]
    for folder, content in metrics.items():
        for test_name, of_test in content["tests"].items():
            for metric, figures in of_test.items():
                low, high = figures["interval_percent"]
                lines.append(
                    f"| {folder} | {test_name} | {metric} | {figures['rate_percent']:.2f} "
                    f"| {low:.2f} - {high:.2f} | {figures['reference_tokens']} |"
                )
    return "\n".join(lines) if metrics else "Not measured: the stage `measure` had not run."


def _origin(card: Card) -> str:
    lines = [
        f"- Training data: {_references(card.config.dataset.train)}",
        f"- Validation data: {_references(card.config.dataset.valid)}",
        f"- Trained for up to {card.config.trainer.max_steps} steps, seed {card.config.seed}",
        f"- `model.ckpt`: SHA-256 {card.checkpoint_sha256}",
    ]
    if card.git is not None:
        changed = ", with uncommitted changes" if card.git["dirty"] else ""
        lines.append(f"- Packed by the code of commit {card.git['commit']}{changed}")
    if card.settings.authors:
        lines.append(f"- Authors: {', '.join(card.settings.authors)}")
    if card.settings.license:
        lines.append(f"- Licence: {card.settings.license}")
    return "\n".join(lines)


def _references(references: list[Any]) -> str:
    shown = []
    for reference in references:
        arguments = reference.get("data_src_args") or {}
        settings = ", ".join(f"{key}: {value}" for key, value in arguments.items())
        shown.append(f"{reference.get('data_src') or 'the recipe itself'} ({settings})")
    return "; ".join(shown) or "none"
