"""Several training processes: who prepares, and who waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def global_rank() -> int:
    """Return this process's rank among those that train together, from its environment.

    torchrun and the launcher set RANK. Lightning, which starts the other ranks of one node by
    itself once rank 0 has prepared everything, sets LOCAL_RANK only.
    """
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0")


def started_by_lightning() -> bool:
    """Tell whether this is a rank that Lightning started as a copy of rank 0's command."""
    return "RANK" not in os.environ and global_rank() > 0


def _started_together() -> bool:
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the block on rank 0, then on the others: they find what it made.

    Lightning takes over the process group that is begun here.
    """
    if not _started_together():
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
