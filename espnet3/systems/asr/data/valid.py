"""The validation batches, the same each time."""

from __future__ import annotations

from collections.abc import Iterator

from lhotse import CutSet
from torch.utils.data import IterableDataset, get_worker_info

from espnet3.systems.asr.data.batches import Batch, BatchMaker
from espnet3.systems.asr.data.endless import START, bucketed_batches
from espnet3.systems.asr.training_config import LoaderConfig


class ValidationBatches(IterableDataset[Batch]):
    """One pass over the validation cuts: this rank's, and this worker's, share of the batches."""

    def __init__(
        self,
        cuts: CutSet,
        make_batch: BatchMaker,
        config: LoaderConfig,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batches = list(bucketed_batches(cuts, config, seed=0))
        self.batches = batches[rank::world_size]
        self.make_batch = make_batch

    def __iter__(self) -> Iterator[Batch]:
        """Yield each batch once."""
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for cuts in self.batches[own::workers]:
            yield self.make_batch(cuts, START)
