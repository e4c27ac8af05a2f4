"""Which of several processes this is."""

from __future__ import annotations

import os
import sys


def process_rank() -> int:
    """Return this process's rank among those that run one stage together, 0 when it is alone.

    torch.distributed is asked first, then the launchers' variables: of a stage on several nodes,
    there is one process for each, and who starts more of them on its node numbers those. A
    scheduler also sets its variables for a process that merely sits in an allocation, so that they
    count only where the number of tasks says that there is more than one.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for rank_name in ("RANK", "LOCAL_RANK"):
        if os.environ.get(rank_name, "").isdigit():
            return int(os.environ[rank_name])
    for rank_name, size_name in (
        ("NODE_RANK", "NNODES"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
    ):
        rank, size = os.environ.get(rank_name, ""), os.environ.get(size_name, "")
        if rank.isdigit() and size.isdigit() and int(size) > 1:
            return int(rank)
    return 0
