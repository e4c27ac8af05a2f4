"""What ``training.yaml`` may hold: the typed keys of the ASR stages up to ``train``.

Durations end in ``_s`` or ``_ms``, rates in ``_hz``. A key that is not here, or holds the wrong
type, is refused with its name before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from espnet3.systems.asr.training_checks import check_values
from espnet3.utils.config_schema import check_config
from espnet3.utils.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class DatasetReferences:
    """References to the data: each entry names a ``data_src`` and its ``data_src_args``."""

    train: list[Any] = field(default_factory=list)
    valid: list[Any] = field(default_factory=list)
    test: list[Any] = field(default_factory=list)


@dataclass
class TokenizerConfig:
    """The SentencePiece model that turns transcripts into ids; 0 is CTC's blank.

    ``model_type`` is ``bpe``, ``unigram``, ``char`` or ``word``. ``vocab_size`` counts blank and
    unknown; 0 takes every word or character of the training transcripts.
    """

    model_type: str = "bpe"
    vocab_size: int = 500
    character_coverage: float = 1.0
    save_path: str = "???"


@dataclass
class FeaturesConfig:
    """Kaldi-compatible log-mel filter banks and their global normalisation.

    ``high_freq_hz`` counts from 0; a value ≤ 0 is an offset from the Nyquist frequency, as in
    Kaldi. With ``utterance_mean_removal`` each utterance's own mean is taken away before the
    global statistics apply, which cancels the gain and the channel.
    """

    sample_rate_hz: int = 16000
    num_mel_bins: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    low_freq_hz: float = 20.0
    high_freq_hz: float = 0.0
    utterance_mean_removal: bool = False


@dataclass
class SpecAugmentConfig:
    """Masks over the normalised features (Park et al. 2019); a count of 0 switches it off."""

    num_freq_masks: int = 2
    max_freq_mask_bins: int = 27
    num_time_masks: int = 5
    max_time_mask_frames: int = 40
    max_time_mask_fraction: float = 0.2


@dataclass
class AugmentationConfig:
    """What is done to the training utterances alone."""

    speed_factors: list[float] = field(default_factory=list)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)


@dataclass
class SubsamplingConfig:
    """Convolutional front end: ``factor`` 4 or 6 input frames become one."""

    factor: int = 4
    channels: int = 256


@dataclass
class ModelConfig:
    """Encoder with a CTC output layer; the defaults are the field's 12 × 512."""

    encoder: str = "conformer"
    num_layers: int = 12
    dim: int = 512
    num_heads: int = 8
    feedforward_dim: int = 2048
    conv_kernel: int = 31
    position: str = "rotary"
    dropout: float = 0.1
    dropout_shared_over_time: bool = False
    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)


@dataclass
class OptimizerConfig:
    """AdamW."""

    lr: float = 1.0e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1.0e-8
    weight_decay: float = 1.0e-2


@dataclass
class SchedulerConfig:
    """Warm-up, then ``linear`` or ``cosine`` to 0 at ``max_steps``, or ``noam`` (1/√step)."""

    name: str = "noam"
    warmup_steps: int = 10000


@dataclass
class AveragingConfig:
    """Exponential moving average of the weights, validated and decoded with; decay 0 is off."""

    decay: float = 0.0
    every_n_steps: int = 1


@dataclass
class LoaderConfig:
    """Batches of at most ``max_duration_s`` of audio, from buckets of like length."""

    max_duration_s: float = 200.0
    num_buckets: int = 30
    num_workers: int = 0
    cache_mb: int = 512


@dataclass
class DataLoaderConfig:
    """The loaders of ``train`` and ``valid``; ``cache_mb`` bounds each process's feature cache."""

    train: LoaderConfig = field(default_factory=LoaderConfig)
    valid: LoaderConfig = field(default_factory=LoaderConfig)


@dataclass
class EarlyStoppingConfig:
    """Stop when ``patience`` validations in a row bring no better figure; 0 never stops."""

    patience: int = 0


@dataclass
class CheckpointConfig:
    """Which checkpoints stay: the newest two, and the ``keep_best`` with the lowest ``monitor``."""

    monitor: str = "valid_WER"
    keep_best: int = 3


@dataclass
class TrainerConfig:
    """The Lightning trainer, by Lightning's names; steps are optimizer steps."""

    max_steps: int = 100000
    val_check_interval: int = 1000
    accelerator: str = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float = 5.0
    log_every_n_steps: int = 50
    num_threads: int = 0
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)


@dataclass
class TrainingConfig:
    """``training.yaml`` as a whole; a recipe's own top-level sections are kept beside these."""

    recipe_dir: str = ""
    data_dir: str = ""
    exp_tag: str = ""
    exp_dir: str = ""
    stats_dir: str = ""
    stage_log_mode: str = "rank0"
    seed: int = 0
    dataset: DatasetReferences = field(default_factory=DatasetReferences)
    create_dataset: dict[str, Any] = field(default_factory=dict)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    dataloader: DataLoaderConfig = field(default_factory=DataLoaderConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def checked_training_config(system: Any) -> TrainingConfig:
    """Return the system's training config as dataclasses, its defaults filled in.

    Raises:
        ConfigError: naming the key that is unknown, of the wrong type, out of range, or not set.
    """
    if system.training_config is None:
        raise ConfigError("This stage needs a training config. Use --training_config PATH.")
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue

    config = check_training_config(system.training_config)
    try:
        typed = OmegaConf.to_object(config)
    except MissingMandatoryValue as error:
        raise ConfigError(f"training_config: '{error.full_key}' must be set.") from error
    assert isinstance(typed, TrainingConfig)
    return typed


def check_training_config(config: DictConfig) -> DictConfig:
    """Return ``config`` with its defaults filled in, every key and value checked.

    Raises:
        ConfigError: naming the key that is unknown, of the wrong type, or out of range.
    """
    checked = check_config(config, TrainingConfig, name="training_config")
    check_values(checked)
    return checked
