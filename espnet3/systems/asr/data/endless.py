"""The endless, resumable sequence of training batches.

Lightning restarts a plain loader's epoch when it resumes, and is a prefetched batch off with a
stateful one. Here the place of the last batch *trained on* is carried in the batch and kept in the
checkpoint; everything random is seeded by (seed, epoch, batch). Going on means to lay out the same
epoch again and skip what was used, with any number of workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import BucketingSampler, SimpleCutSampler
from lhotse.dataset.sampling.base import CutSampler
from torch.utils.data import IterableDataset, get_worker_info

from espnet3.systems.asr.data.batches import Batch, BatchMaker, Position
from espnet3.systems.asr.training_config import LoaderConfig

START = Position(epoch=0, batch=-1, total=0)

# Cuts of one epoch, from (epoch, seed, progress in [0, 1)).
EpochCuts = Callable[[int, int, float], CutSet]


def bucketed_batches(cuts: CutSet, config: LoaderConfig, seed: int) -> Iterator[list[Cut]]:
    """Yield lists of cuts of like length, at most ``max_duration_s`` together, shuffled.

    Speed factors are drawn later: the bound is on the durations as recorded.
    """
    for batch in _sampler(cuts, config, seed):
        yield list(batch)


def _sampler(cuts: CutSet, config: LoaderConfig, seed: int) -> CutSampler:
    common = {
        "max_duration": config.max_duration_s,
        "shuffle": True,
        "seed": seed,
        "world_size": 1,
        "rank": 0,
    }
    num_buckets = min(config.num_buckets, len(cuts))
    if num_buckets == 1:
        return SimpleCutSampler(cuts, **common)
    # Not the dynamic one (lhotse 1.33): in a loader's worker its order depends on the worker, and
    # without sync_buckets it ends with buckets left over.
    return BucketingSampler(cuts, num_buckets=num_buckets, **common)


class EndlessBatches(IterableDataset[Batch]):
    """Training batches of one rank, epoch after epoch, from a given place on.

    Every rank and every worker lays out the same epochs and takes its own share, so no
    communication is needed. Batches that do not fill all ranks at an epoch's end are left out.

    Args:
        epoch_cuts: gives the cuts of an epoch.
        make_batch: turns cuts into a batch.
        config: the loader's settings.
        speed_factors: one is drawn for each cut; empty for none.
        seed: with epoch and batch, decides everything random.
        total_batches: batches of the whole training, which ``progress`` is a fraction of.
        rank, world_size: this process among those that train together.
        start: the place of the last batch that was trained on.
    """

    def __init__(
        self,
        epoch_cuts: EpochCuts,
        make_batch: BatchMaker,
        config: LoaderConfig,
        *,
        speed_factors: Sequence[float],
        seed: int,
        total_batches: int,
        rank: int = 0,
        world_size: int = 1,
        start: Position = START,
    ) -> None:
        self.epoch_cuts = epoch_cuts
        self.make_batch = make_batch
        self.config = config
        self.speed_factors = list(speed_factors)
        self.seed = seed
        self.total_batches = total_batches
        self.rank = rank
        self.world_size = world_size
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's share: every ``num_workers``-th batch, as DataLoader interleaves."""
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for index, (cuts, position) in enumerate(self._cuts()):
            if index % workers == own:
                yield self._batch(cuts, position)

    def _batch(self, cuts: list[Cut], position: Position) -> Batch:
        speeds = None
        if self.speed_factors:
            # A string seeds Random by its hash digest: the same on every machine.
            draw = random.Random(f"{self.seed}-{position.epoch}-{position.batch}-{self.rank}")
            speeds = [draw.choice(self.speed_factors) for _ in cuts]
        return self.make_batch(cuts, position, speeds)

    def _cuts(self) -> Iterator[tuple[list[Cut], Position]]:
        total = self.start.total - (self.start.batch + 1)
        for epoch in count(self.start.epoch):
            progress = min(total / self.total_batches, 1.0 - 1e-9)
            cuts = self.epoch_cuts(epoch, self.seed, progress)
            batch = -1
            for batch, own in enumerate(self._own_share(cuts, epoch)):
                total += 1
                if epoch > self.start.epoch or batch > self.start.batch:
                    yield own, Position(epoch, batch, total)
            if batch < 0:
                raise ValueError(
                    f"Epoch {epoch} gave fewer batches than there are ranks ({self.world_size});"
                    " lower dataloader.train.max_duration_s or the number of devices."
                )

    def _own_share(self, cuts: CutSet, epoch: int) -> Iterator[list[Cut]]:
        group: list[list[Cut]] = []
        for batch in bucketed_batches(cuts, self.config, seed=self.seed + epoch):
            group.append(batch)
            if len(group) == self.world_size:
                yield group[self.rank]
                group = []
