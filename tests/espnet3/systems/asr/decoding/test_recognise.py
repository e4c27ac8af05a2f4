"""Batches by length, and the device."""

from dataclasses import dataclass

import pytest
import torch

from espnet3.systems.asr.decoding.recognise import batches_by_length, choose_device
from espnet3.utils.errors import ConfigError


@dataclass
class Cut:
    duration: float


def durations(cuts, **limits):
    batches = batches_by_length([Cut(each) for each in cuts], **limits)
    return [[cut.duration for cut in batch] for batch in batches]


def test_batches_are_longest_first_and_no_larger_than_asked():
    found = durations([1, 5, 3, 2, 4], batch_size=2, max_batch_duration_s=100)
    assert found == [[5, 4], [3, 2], [1]]


def test_padding_counts_as_audio():
    # 3 × 10 s with padding is more than 25 s, although 10 + 8 + 7 is not.
    assert durations([7, 10, 8], batch_size=9, max_batch_duration_s=25) == [[10, 8], [7]]


def test_a_cut_over_the_limit_is_alone():
    assert durations([30, 1, 1], batch_size=9, max_batch_duration_s=10) == [[30], [1, 1]]


def test_nothing_gives_nothing():
    assert durations([], batch_size=4, max_batch_duration_s=10) == []


def test_auto_is_a_device_that_works():
    assert torch.zeros(1, device=choose_device("auto")).item() == 0


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ConfigError, match=f"'model.device' is '{name}'"):
        choose_device(name)
