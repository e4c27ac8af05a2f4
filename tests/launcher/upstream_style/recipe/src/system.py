"""A system that counts words, with its stages as a class attribute."""

import os
from collections import Counter
from pathlib import Path

from espnet3.contract.stages import StageSpec


class CountingSystem:
    """Two stages on one config, a third on another."""

    stages = (
        StageSpec("create_dataset", "training", "data_dir"),
        StageSpec("train", "training", "exp_dir"),
        StageSpec("measure", "metrics", "report.dir"),
    )

    def __init__(self, training_config=None, metrics_config=None):
        self.training_config = training_config
        self.metrics_config = metrics_config
        Path(training_config.exp_dir).mkdir(parents=True, exist_ok=True)  # as upstream's does

    def create_dataset(self):
        Path(self.training_config.data_dir, "text").write_text("one two two\n")

    def train(self):
        if os.environ.get("COUNTING_FAILS"):
            raise RuntimeError("no words, no model")
        words = Path(self.training_config.data_dir, "text").read_text().split()
        Path(self.training_config.exp_dir, "model").write_text(repr(Counter(words)))

    def measure(self):
        print("most common:", Path(self.training_config.exp_dir, "model").read_text())
