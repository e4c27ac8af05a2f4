"""Handing a chain to SLURM costs little more than a loop of sbatch does."""

from __future__ import annotations

import os
import statistics

import pytest

from tests.bench import bench_submission as bench

pytestmark = [pytest.mark.cluster, pytest.mark.target]


@pytest.mark.usefixtures("slurm")
def test_a_chain_of_ten_costs_at_most_half_as_much_again() -> None:
    before = dict(os.environ)
    try:
        measured = bench.measure()
    finally:
        os.environ.clear()
        os.environ.update(before)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    assert medians[bench.JOBS] <= bench.ALLOWED * medians[bench.SHELL], medians
