"""A stage's container as it is run on a node: what the job was given there is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from launcher.clusters.base import Allocation
from launcher.containers.base import ContainerRun, ImageFormat, Mount
from launcher.images.pin import VerifiedImage
from launcher.job.scratch import scratch_dir
from launcher.job.stage_files import OUTPUT_INODE
from launcher.launch import Job
from launcher.masking import mask_environment
from launcher.mounts import in_order

# Never passed on by pattern: a container sees its own devices only, and they count from 0.
_OWN_OF_HOST = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_RDMA = Path("/dev/infiniband")


def container_run(
    job: Job,
    allocation: Allocation,
    image: VerifiedImage | None,
    *,
    environ: Mapping[str, str],
    image_format: ImageFormat,
    has_rdma: bool | None = None,
) -> ContainerRun:
    """Return what is run on a node.

    Args:
        job: what to run.
        allocation: what the cluster gave to the job there.
        image: the image as it was found there; None without a container.
        environ: the job's environment.
        image_format: of the runtime.
        has_rdma: whether the node has InfiniBand devices; looked up when None.
    """
    has_rdma = _RDMA.is_dir() if has_rdma is None else has_rdma
    run = job.run
    attempt = f"-r{allocation.restart_count}" if allocation.restart_count else ""
    rank = f".{allocation.rank}" if allocation.rank else ""
    name = f"{run.name}{rank}{attempt}"
    environment = {**rank_environment(allocation), **run.environment}
    mounts = run.mounts
    secrets = [name for name in run.secrets if name in environ]
    if image is not None:
        allowed = passed_on(environ, job.pass_env)
        masked = mask_environment(allowed)
        # A proxy's address may hold a password: it goes by name.
        secrets += [name for name, value in allowed.items() if masked[name] != value]
        environment = {**image.environment, **allowed, **environment}
    if image_format in (ImageFormat.SIF, ImageFormat.SQSH):
        mounts = in_order([*mounts, Mount(scratch_dir(name), Path("/tmp"))])
    return replace(
        run,
        image="" if image is None else image.argument,
        name=name,
        mounts=mounts,
        used=run.used and run.used.with_name(f"{run.used.name}{rank}{attempt}"),
        environment={name: environment[name] for name in environment if name not in secrets},
        # By name as well, so that the command is the one that a dry run shows.
        secrets=tuple(dict.fromkeys([*secrets, OUTPUT_INODE])),
        gpus=allocation.gpus,
        visible_gpus=allocation.visible_gpus,
        devices=(_RDMA,) if has_rdma and run.num_nodes > 1 else (),
    )


def passed_on(environ: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Return the variables that one of the patterns allows."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name not in _OWN_OF_HOST and any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def rank_environment(allocation: Allocation) -> dict[str, str]:
    """Return what a stage on several nodes needs to find the others, as torchrun names it."""
    if allocation.num_nodes == 1:
        return {}
    return {
        "MASTER_ADDR": allocation.master,
        "MASTER_PORT": str(allocation.record.get("master_port", 29500)),
        "NNODES": str(allocation.num_nodes),
        "NODE_RANK": str(allocation.rank),
    }
