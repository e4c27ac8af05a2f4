"""Several training processes: who prepares, and who waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def global_rank() -> int:
    """Return this process's rank among those that train together, from its environment."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together, from the environment (torchrun, the launcher)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the block on rank 0, then on the others: they find what it made.

    Lightning takes over the process group that is begun here.
    """
    if world_size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if global_rank() != 0:
        dist.barrier()
    try:
        yield
    finally:
        if global_rank() == 0:
            dist.barrier()
