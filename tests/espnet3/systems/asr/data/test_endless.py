"""The endless sequence of batches: exact places, shares of ranks and workers, progress."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from lhotse import CutSet, MonoCut
from torch.utils.data import DataLoader

from espnet3.systems.asr.data.batches import Batch, Position
from espnet3.systems.asr.data.endless import START, EndlessBatches, bucketed_batches
from espnet3.systems.asr.training_config import LoaderConfig

CONFIG = LoaderConfig(max_duration_s=6.0, num_buckets=3)
CUTS = CutSet.from_cuts(
    MonoCut(id=f"cut{n:02d}", start=0, duration=0.5 + 0.1 * (n % 17), channel=0) for n in range(40)
)


class Recorder:
    """Stands in for the BatchMaker: keeps what a batch would be made of."""

    def __call__(self, cuts: list[Any], position: Position, speeds: list[float] | None) -> Any:
        return [cut.id for cut in cuts], position, speeds


def endless(**settings: Any) -> EndlessBatches:
    defaults = {"speed_factors": [0.9, 1.1], "seed": 1, "total_batches": 100}
    return EndlessBatches(
        lambda epoch, seed, progress: CUTS,
        Recorder(),  # type: ignore[arg-type]
        CONFIG,
        **{**defaults, **settings},
    )


def first(batches: Any, count: int) -> list[Any]:
    return list(islice(iter(batches), count))


def test_buckets_hold_cuts_of_like_length_within_the_bound() -> None:
    batches = list(bucketed_batches(CUTS, CONFIG, seed=0))
    assert sorted(cut.id for batch in batches for cut in batch) == sorted(cut.id for cut in CUTS)
    assert all(sum(cut.duration for cut in batch) <= 6.0 for batch in batches)
    spreads = [np.ptp([cut.duration for cut in batch]) for batch in batches]
    assert max(spreads) < 1.0 < np.ptp([cut.duration for cut in CUTS])


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("num_buckets", [1, 30])
def test_any_number_of_buckets_and_cuts_will_do(count: int, num_buckets: int) -> None:
    cuts = CutSet.from_cuts(list(CUTS)[:count])
    config = LoaderConfig(max_duration_s=6.0, num_buckets=num_buckets)
    batches = list(bucketed_batches(cuts, config, seed=0))
    assert sorted(cut.id for batch in batches for cut in batch) == sorted(cut.id for cut in cuts)


def test_each_epoch_has_every_cut_once_in_another_order() -> None:
    batches = first(endless(), 60)
    epochs = [[cut for ids, place, _ in batches if place.epoch == e for cut in ids] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(cut.id for cut in CUTS)
    assert epochs[0] != epochs[1]


def test_going_on_from_any_place_gives_what_would_have_come() -> None:
    whole = first(endless(), 40)
    for stop in (0, 3, 8, 9, 25):
        start = whole[stop][1]
        assert start.total == stop + 1
        assert first(endless(start=start), 10) == whole[stop + 1 : stop + 11]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_same_sequence(num_workers: int) -> None:
    start = first(endless(), 5)[-1][1]
    alone = first(endless(start=start), 20)
    loader = DataLoader(
        endless(start=start),
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context="fork",
    )
    assert [(ids, tuple(place), speeds) for ids, place, speeds in islice(loader, 20)] == alone


def test_ranks_share_the_batches_of_each_epoch() -> None:
    ranks = [first(endless(rank=rank, world_size=2), 12) for rank in (0, 1)]
    whole = [ids for ids, place, _ in first(endless(), 60) if place.epoch == 0]
    shared = [ids for pair in zip(*ranks, strict=True) for ids, place, _ in pair if not place.epoch]
    assert shared == whole[: len(shared)]
    assert len(whole) - len(shared) < 2
    assert [place for _, place, _ in ranks[0]] == [place for _, place, _ in ranks[1]]


def test_speeds_differ_by_batch_and_come_from_the_factors() -> None:
    drawn = [speeds for _, _, speeds in first(endless(), 20)]
    assert {speed for speeds in drawn for speed in speeds} == {0.9, 1.1}
    assert drawn != [speeds for _, _, speeds in first(endless(seed=2), 20)]
    assert first(endless(speed_factors=[]), 1)[0][2] is None


def test_progress_is_the_share_of_all_batches_when_the_epoch_begins() -> None:
    asked: list[tuple[int, int, float]] = []

    def epoch_cuts(epoch: int, seed: int, progress: float) -> CutSet:
        asked.append((epoch, seed, round(progress, 4)))
        return CUTS

    def fresh(start: Position = START) -> EndlessBatches:
        return EndlessBatches(
            epoch_cuts,
            Recorder(),  # type: ignore[arg-type]
            CONFIG,
            speed_factors=[],
            seed=5,
            total_batches=50,
            start=start,
        )

    batches = first(fresh(), 45)
    per_epoch = sum(place.epoch == 0 for _, place, _ in batches)
    second = next(epoch for epoch in asked if epoch[0] == 1)
    assert second == (1, 5, round(per_epoch / 50, 4))
    undisturbed = list(asked)
    asked.clear()
    in_second = next(place for _, place, _ in batches if place.epoch == 1 and place.batch == 2)
    first(fresh(in_second), 3)
    assert asked == [undisturbed[1]]


def test_too_little_data_for_the_ranks_is_an_error() -> None:
    with pytest.raises(ValueError, match="fewer batches than there are ranks"):
        first(endless(world_size=100), 1)


def test_a_batch_is_padded_and_its_tokens_follow_each_other() -> None:
    from espnet3.systems.asr.data import batches as module

    class Store:
        def features(self, cut: MonoCut, speed: float) -> np.ndarray:
            return np.full((round(10 * cut.duration / speed), 2), speed, dtype=np.float32)

    class Tokenizer:
        def encode(self, text: str) -> list[int]:
            return [len(word) for word in text.split()]

    from lhotse import SupervisionSegment

    cuts = []
    for name, duration, text in (("a", 1.0, "ONE TWO"), ("b", 2.0, "THREE")):
        segment = SupervisionSegment(name, "r", 0, duration, text=text)
        cuts.append(MonoCut(name, 0, duration, 0, supervisions=[segment]))
    maker = module.BatchMaker(Store(), Tokenizer())  # type: ignore[arg-type]
    batch: Batch = maker(cuts, Position(1, 2, 3), [1.0, 2.0])
    assert batch.features.shape == (2, 10, 2)
    assert batch.feature_lengths.tolist() == [10, 10]
    assert batch.tokens.tolist() == [3, 3, 5]
    assert batch.token_lengths.tolist() == [2, 1]
    assert batch.texts == ["ONE TWO", "THREE"]
    padded = maker(cuts, Position(1, 2, 3))
    assert padded.features.shape == (2, 20, 2)
    assert not padded.features[0, 10:].any()
