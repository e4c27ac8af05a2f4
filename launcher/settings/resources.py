"""What a stage asks of the machine that it runs on, in submitit's terms."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.settings.ranges import number


@dataclass
class Resources:
    """``resources.*`` of the configuration, and of each stage under ``stages.<name>``.

    Attributes:
        nodes: number of nodes; one container runs on each.
        cpus_per_task: CPUs of a node for the stage; None leaves it to the cluster.
        gpus_per_node: GPUs of each node.
        mem_gb: memory of each node in GiB; None leaves it to the cluster.
        timeout_min: time limit in minutes; None leaves it to the cluster.
    """

    nodes: int = number(1, least=1, most=100_000)
    cpus_per_task: int | None = number(None, least=1, most=100_000)
    gpus_per_node: int = number(0, least=0, most=1000)
    mem_gb: float | None = number(None, least=0.01, most=1e6, unit="GiB")
    timeout_min: int | None = number(None, least=1, most=5_256_000, unit="minutes")
