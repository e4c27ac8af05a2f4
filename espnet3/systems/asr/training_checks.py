"""Which values the keys of ``training.yaml`` may have, beyond their types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from espnet3.utils.config_bounds import check_bounds, check_choices
from espnet3.utils.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NAME = "training_config"
CHOICES: dict[str, tuple[Any, ...]] = {
    "stage_log_mode": ("rank0", "per_rank"),
    "tokenizer.model_type": ("bpe", "unigram", "char", "word"),
    "model.encoder": ("conformer", "transformer"),
    "model.position": ("rotary", "sinusoidal"),
    "model.subsampling.factor": (4, 6),
    "scheduler.name": ("linear", "cosine", "noam"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_static_graph"),
    "trainer.precision": ("32-true", "16-mixed", "bf16-mixed"),
    "trainer.checkpoint.monitor": ("valid_WER", "valid_loss"),
}
BOUNDS = {
    "seed": "[0, 4294967295]",
    "tokenizer.vocab_size": "[0, inf)",
    "tokenizer.character_coverage": "(0, 1]",
    "features.sample_rate_hz": "[1, inf)",
    "features.num_mel_bins": "[1, inf)",
    "features.frame_length_ms": "(0, inf)",
    "features.frame_shift_ms": "(0, inf)",
    "features.low_freq_hz": "[0, inf)",
    "features.high_freq_hz": "(-inf, inf)",
    "augmentation.speed_factors": "(0.5, 2)",
    "augmentation.spec_augment.num_freq_masks": "[0, inf)",
    "augmentation.spec_augment.max_freq_mask_bins": "[0, inf)",
    "augmentation.spec_augment.num_time_masks": "[0, inf)",
    "augmentation.spec_augment.max_time_mask_frames": "[0, inf)",
    "augmentation.spec_augment.max_time_mask_fraction": "[0, 1]",
    "model.num_layers": "[1, inf)",
    "model.dim": "[1, inf)",
    "model.num_heads": "[1, inf)",
    "model.feedforward_dim": "[1, inf)",
    "model.conv_kernel": "[1, inf)",
    "model.dropout": "[0, 1)",
    "model.subsampling.channels": "[1, inf)",
    "optimizer.lr": "[0, inf)",
    "optimizer.betas": "[0, 1)",
    "optimizer.eps": "[0, inf)",
    "optimizer.weight_decay": "[0, inf)",
    "scheduler.warmup_steps": "[0, inf)",
    "averaging.decay": "[0, 1)",
    "averaging.every_n_steps": "[1, inf)",
    "dataloader.train.max_duration_s": "(0, inf)",
    "dataloader.train.num_buckets": "[1, inf)",
    "dataloader.train.num_workers": "[0, inf)",
    "dataloader.train.cache_mb": "[0, inf)",
    "dataloader.valid.max_duration_s": "(0, inf)",
    "dataloader.valid.num_buckets": "[1, inf)",
    "dataloader.valid.num_workers": "[0, inf)",
    "dataloader.valid.cache_mb": "[0, inf)",
    "trainer.max_steps": "[1, inf)",
    "trainer.val_check_interval": "[1, inf)",
    "trainer.num_nodes": "[1, inf)",
    "trainer.accumulate_grad_batches": "[1, inf)",
    "trainer.gradient_clip_val": "[0, inf)",
    "trainer.log_every_n_steps": "[1, inf)",
    "trainer.num_threads": "[0, inf)",
    "trainer.checkpoint.keep_best": "[1, inf)",
    "trainer.early_stopping.patience": "[0, inf)",
}
# The subsampling's two convolutions must leave at least one bin.
_LEAST_BINS = {4: 7, 6: 11}
_DEVICES = re.compile(r"auto|-1|[1-9]\d*|\d+(, *\d+)+")


def check_values(config: DictConfig) -> None:
    """Check every value of a typed training config, by itself and with those it depends on.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    check_choices(config, CHOICES, name=_NAME)
    check_bounds(config, BOUNDS, name=_NAME)
    model, tokenizer = config.model, config.tokenizer
    if tokenizer.vocab_size == 0 and tokenizer.model_type not in ("char", "word"):
        raise _error(
            "tokenizer.vocab_size",
            0,
            f"'{tokenizer.model_type}' needs a number. Set it, or take model_type: char or word, "
            "which can use all they find",
        )
    if model.dim % (2 * model.num_heads):
        raise _error(
            "model.dim",
            model.dim,
            f"it must be a multiple of 2 × num_heads = {2 * model.num_heads}",
        )
    if model.conv_kernel % 2 == 0:
        raise _error("model.conv_kernel", model.conv_kernel, "it must be odd")
    if len(config.optimizer.betas) != 2:
        raise _error("optimizer.betas", config.optimizer.betas, "there must be two")
    _check_features(config.features, config.model.subsampling.factor)
    _check_devices(config.trainer.devices)


def _check_features(features: Any, subsampling_factor: int) -> None:
    rate_hz, nyquist_hz = features.sample_rate_hz, features.sample_rate_hz / 2
    for key, least in (("frame_length_ms", 2), ("frame_shift_ms", 1)):
        value = features[key]
        if int(rate_hz * value / 1000) < least:
            limit = f"{least} sample{'s' if least > 1 else ''} at {rate_hz} Hz"
            raise _error(f"features.{key}", value, f"it must be at least {limit}")
    high_hz = features.high_freq_hz
    top_hz = high_hz if high_hz > 0 else nyquist_hz + high_hz
    if not 0 < top_hz <= nyquist_hz:
        raise _error(
            "features.high_freq_hz", high_hz, f"the Nyquist frequency is {nyquist_hz:g} Hz"
        )
    if features.low_freq_hz >= top_hz:
        raise _error(
            "features.low_freq_hz",
            features.low_freq_hz,
            f"it must be below the highest frequency, {top_hz:g} Hz",
        )
    least_bins = _LEAST_BINS[subsampling_factor]
    if features.num_mel_bins < least_bins:
        raise _error(
            "features.num_mel_bins",
            features.num_mel_bins,
            f"model.subsampling.factor {subsampling_factor} needs at least {least_bins}",
        )


def _check_devices(devices: Any) -> None:
    """Check the number of devices, or their indices, as Lightning takes them."""
    from omegaconf import ListConfig

    if isinstance(devices, ListConfig):
        fits = bool(devices) and all(type(each) is int and each >= 0 for each in devices)
    else:
        fits = type(devices) in (int, str) and bool(_DEVICES.fullmatch(str(devices)))
    if not fits:
        raise _error(
            "trainer.devices", devices, "write auto, a number from 1, or a list such as [0, 1]"
        )


def _error(key: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"{_NAME}: '{key}' is {value}; {rule}.")
