"""The stages ``collect_stats`` and ``train``.

Lightning is imported by ``run_train`` alone: it takes seconds, and no other stage needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet3.systems.asr.system import ASRSystem


def run_collect_stats(system: ASRSystem) -> dict[str, Any]:
    """Compute the global statistics of the training features; see ``collect_stats``."""
    from espnet3.systems.asr.training.collect_stats import run_collect_stats

    return run_collect_stats(system)


def run_train(system: ASRSystem) -> dict[str, Any]:
    """Train the recogniser; see ``train``."""
    from espnet3.systems.asr.training.train import run_train

    return run_train(system)
