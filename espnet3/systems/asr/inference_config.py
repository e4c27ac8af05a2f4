"""What ``inference.yaml``, ``metrics.yaml`` and ``publication.yaml`` may hold.

A key that is not here, or holds the wrong type, is refused with its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from espnet3.utils.config_bounds import check_bounds, check_choices
from espnet3.utils.config_schema import check_config
from espnet3.utils.errors import ConfigError

if TYPE_CHECKING:
    from espnet3.systems.base.system import BaseSystem

_CHOICES = {"inference": {"decoding.method": ("prefix_beam", "greedy")}}
BOUNDS = {
    "inference": {
        "model.num_threads": "[0, inf)",
        "decoding.beam_size": "[1, inf)",
        "decoding.nbest": "[1, inf)",
        "batch_size": "[1, inf)",
        "max_batch_duration_s": "(0, inf)",
    },
    "metrics": {"bootstrap_samples": "[1, inf)", "confusions": "[0, inf)"},
}


@dataclass
class ReferencesToTest:
    """References to the test sets, each with a ``name``."""

    test: list[Any] = field(default_factory=list)


@dataclass
class RecogniserConfig:
    """Which model decodes, and where.

    ``checkpoint`` is a path (a relative one counts from ``recipe_dir``); ``None`` is the best of
    the training in ``exp_dir``. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:1``;
    ``num_threads`` are those of the CPU, 0 for as many as torch chooses.
    """

    checkpoint: str | None = None
    device: str = "auto"
    num_threads: int = 0


@dataclass
class DecodingConfig:
    """``greedy`` (best path) or ``prefix_beam``; ``nbest`` hypotheses go to ``hyp.jsonl``."""

    method: str = "prefix_beam"
    beam_size: int = 10
    nbest: int = 1


@dataclass
class InferenceConfig:
    """``inference.yaml`` as a whole.

    Batches hold utterances of like length: at most ``batch_size`` of them, and
    ``max_batch_duration_s`` of audio with its padding.
    """

    recipe_dir: str = ""
    data_dir: str = ""
    exp_tag: str = ""
    exp_dir: str = ""
    inference_dir: str = ""
    dataset: ReferencesToTest = field(default_factory=ReferencesToTest)
    model: RecogniserConfig = field(default_factory=RecogniserConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    batch_size: int = 32
    max_batch_duration_s: float = 200.0


@dataclass
class MetricInputs:
    """The texts compared: ``<name>.txt`` in a test set's folder."""

    ref: str = "ref"
    hyp: str = "hyp"


@dataclass
class MetricEntry:
    """One metric: its class as ``_target_`` with the class's settings, and what it compares."""

    metric: dict[str, Any] = field(default_factory=dict)
    inputs: MetricInputs = field(default_factory=MetricInputs)


@dataclass
class MetricsConfig:
    """``metrics.yaml`` as a whole.

    Scored are the test sets of ``dataset.test``; where it names none, those of the inference
    config; without one, all that lie in ``inference_dir``.
    """

    recipe_dir: str = ""
    data_dir: str = ""
    exp_tag: str = ""
    exp_dir: str = ""
    inference_dir: str | None = None
    dataset: ReferencesToTest = field(default_factory=ReferencesToTest)
    metrics: list[MetricEntry] = field(default_factory=list)
    bootstrap_samples: int = 1000
    confusions: int = 20


@dataclass
class PackConfig:
    """What ``pack_model`` puts into the archive and says on its card.

    ``archive`` is the file to write; ``None`` is ``<exp_dir>/<exp_tag>.tar.gz``.
    """

    archive: str | None = None
    checkpoint: str | None = None
    title: str | None = None
    description: str = ""
    language: str = ""
    license: str = ""
    authors: list[str] = field(default_factory=list)


@dataclass
class PublicationConfig:
    """``publication.yaml`` as a whole."""

    recipe_dir: str = ""
    data_dir: str = ""
    exp_tag: str = ""
    exp_dir: str = ""
    pack_model: PackConfig = field(default_factory=PackConfig)


def checked_inference_config(system: BaseSystem) -> InferenceConfig:
    """Return the system's inference config as dataclasses, its defaults filled in.

    Raises:
        ConfigError: naming the key that is unknown, of the wrong type, or out of range.
    """
    config = _checked(system.inference_config, InferenceConfig, "inference")
    decoding = config.decoding
    most = decoding.beam_size if decoding.method == "prefix_beam" else 1
    if decoding.nbest > most:
        raise ConfigError(
            f"inference_config: 'decoding.nbest' is {decoding.nbest}, but {decoding.method} gives "
            f"at most {most}. Lower it, or raise decoding.beam_size."
        )
    names_of_test_sets(config.dataset.test, "inference_config")
    return config


def checked_metrics_config(system: BaseSystem) -> MetricsConfig:
    """Return the system's metrics config as dataclasses, its defaults filled in.

    Raises:
        ConfigError: naming the key that is unknown, of the wrong type, or out of range.
    """
    config = _checked(system.metrics_config, MetricsConfig, "metrics")
    names_of_test_sets(config.dataset.test, "metrics_config")
    return config


def checked_publication_config(system: BaseSystem) -> PublicationConfig:
    """Return the system's publication config as dataclasses; the defaults if it has none."""
    if system.publication_config is None:
        return PublicationConfig()
    return _checked(system.publication_config, PublicationConfig, "publication")


def names_of_test_sets(references: list[Any], config_name: str) -> list[str]:
    """Return the names of test sets, which become folders of ``inference_dir``.

    Raises:
        ConfigError: a name is missing, given twice, or no name for a folder.
    """
    names = [str(reference.get("name") or "") for reference in references]
    for name in names:
        if not name or name.startswith(".") or Path(name).name != name:
            raise ConfigError(
                f"{config_name}: an entry of dataset.test has the name '{name}'; results are kept "
                "in a folder of that name. Write e.g. {name: test, data_src_args: {split: test}}."
            )
        if names.count(name) > 1:
            raise ConfigError(f"{config_name}: dataset.test has the name '{name}' more than once.")
    return names


_Schema = TypeVar("_Schema")


def _checked(config: Any, schema: type[_Schema], role: str) -> _Schema:
    if config is None:
        raise ConfigError(f"This stage needs --{role}_config PATH.")
    from omegaconf import OmegaConf

    checked = check_config(config, schema, name=f"{role}_config")
    check_choices(checked, _CHOICES.get(role, {}), name=f"{role}_config")
    check_bounds(checked, BOUNDS.get(role, {}), name=f"{role}_config")
    typed = OmegaConf.to_object(checked)
    assert isinstance(typed, schema)
    return typed
