"""The optimizer and its schedule, by optimizer step and never by wall clock."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from espnet3.systems.asr.training_config import OptimizerConfig, SchedulerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, fused: bool) -> AdamW:
    """Return AdamW over ``model``; biases and norms do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    first, second = config.betas
    return AdamW(groups, lr=config.lr, betas=(first, second), eps=config.eps, fused=fused)


def learning_rate_factor(config: SchedulerConfig, max_steps: int) -> Callable[[int], float]:
    """Return the factor on the peak learning rate as a function of the steps done."""
    warmup = min(config.warmup_steps, max_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if config.name == "noam":
            return math.sqrt((warmup + 1) / (step + 1))
        done = (step - warmup) / max(1, max_steps - warmup)
        if config.name == "linear":
            return max(0.0, 1.0 - done)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    return factor


def build_scheduler(optimizer: AdamW, config: SchedulerConfig, max_steps: int) -> LambdaLR:
    """Return the schedule, to be advanced after every optimizer step."""
    return LambdaLR(optimizer, learning_rate_factor(config, max_steps))
