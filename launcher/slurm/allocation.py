"""What SLURM gives to the job of a stage; when its turn has not come, and when its time is up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from submitit.slurm.slurm import _parse_node_list

from launcher.clusters.base import Allocation
from launcher.job.outcome import Outcome
from launcher.job.stop_request import StopRequest
from launcher.records import LaunchRecords
from launcher.slurm import client as slurm_client
from launcher.slurm.daemons import StepDaemons
from launcher.slurm.script import WARNING_SIGNAL, warning_delay_s
from launcher.status import DONE, FAILED, SKIPPED, cancel_requested, job_status, why_skipped

if TYPE_CHECKING:
    from launcher.launch import Job

_WARNING = signal.Signals[f"SIG{WARNING_SIGNAL}"]
# Before the SIGKILL that ends a job: what its process takes to end the stage and to record it.
_TO_RECORD_S = 2.0
# For the record of the stage before to be seen on this node.
_RECORD_PATIENCE_S = 30.0
_POLL_S = 0.5
_FIRST_PORT, _NUM_PORTS = 20000, 20000


@contextmanager
def allocation(
    job: Job, records: LaunchRecords, stop: StopRequest
) -> Iterator[Allocation | Outcome]:
    """Tell what SLURM gave to this job on this node, by what it says in the environment."""
    with StepDaemons(stop):
        yield _allocated(job, records, stop)


def _allocated(job: Job, records: LaunchRecords, stop: StopRequest) -> Allocation | Outcome:
    kill_wait_s = slurm_client.kill_wait_s()
    if kill_wait_s is not None:
        stop.kill_after_s = max(kill_wait_s - _TO_RECORD_S, _TO_RECORD_S / 2)
    stop.act_on(_WARNING, lambda: _on_warning(job, records, stop))
    stop.warn_on(signal.SIGUSR2, "asked to save its work")  # by hand; submitit would end the job
    if cancel_requested(records, job.stage):
        stop.request()  # it was asked to before it listened
    if undone := _upstream_undone(job, records, stop):
        return undone
    return granted(os.environ)


def granted(environ: Mapping[str, str]) -> Allocation:
    """Return what SLURM gave to a process of a step, by its environment."""
    gpus = environ.get("SLURM_STEP_GPUS") or environ.get("SLURM_JOB_GPUS") or ""
    visible = environ.get("CUDA_VISIBLE_DEVICES") if gpus else None
    nodes = _parse_node_list(environ["SLURM_JOB_NODELIST"])
    cpus = _number(environ.get("SLURM_CPUS_ON_NODE"))
    record = {
        "partition": environ.get("SLURM_JOB_PARTITION"),
        "account": environ.get("SLURM_JOB_ACCOUNT"),
        "qos": environ.get("SLURM_JOB_QOS"),
        "nodes": nodes,
        "cpus": cpus,
        "mem_mb": _memory_mb(environ, cpus),
        "gpus": gpus.split(",") if gpus else [],
        "master_port": _FIRST_PORT + int(environ["SLURM_JOB_ID"]) % _NUM_PORTS,
    }
    return Allocation(
        node=environ.get("SLURMD_NODENAME") or os.uname().nodename,
        gpus=tuple(gpus.split(",")) if gpus else (),
        visible_gpus=tuple(visible.split(",")) if visible else None,
        rank=int(environ.get("SLURM_NODEID") or 0),
        num_nodes=len(nodes),
        master=nodes[0],
        restart_count=int(environ.get("SLURM_RESTART_COUNT") or 0),
        record=record,
    )


def _on_warning(job: Job, records: LaunchRecords, stop: StopRequest) -> None:
    """Stop a stage that is cancelled; warn any other, in the last seconds that were chosen for it.

    Slurm looks at time limits twice a minute, and sends the warning up to a minute early.
    """
    if cancel_requested(records, job.stage):
        # SLURM has not begun to count: the guard has all of its time.
        kill_after_s, stop.kill_after_s = stop.kill_after_s, None
        stop.request()
        stop.kill_after_s = kill_after_s
        return
    delay_s = warning_delay_s(job)
    left_s = slurm_client.time_left_s(os.environ["SLURM_JOB_ID"])
    if left_s is not None and left_s > delay_s:
        time.sleep(left_s - delay_s)
    limit_min = job.settings.resources.timeout_min
    limit = "" if limit_min is None else f" of {limit_min:g} min"
    stop.warn(
        f"warned {delay_s:g} s before its time limit{limit}: run it again, and a training goes on "
        f"from its checkpoint, or raise stages.{job.stage}.timeout_min",
        time_is_up=True,
    )


def _upstream_undone(job: Job, records: LaunchRecords, stop: StopRequest) -> Outcome | None:
    """Say why the stage may not run, though SLURM says that the job before it has completed.

    So ends a job whose script never came to its stage (``setup: ["exec true"]``); and a record may
    be late on a file system of several nodes.
    """
    if job.after is None:
        return None
    patience_end = time.monotonic() + _RECORD_PATIENCE_S
    while (status := job_status(records, job.after)).state != DONE:
        if status.has_ended:
            return Outcome(SKIPPED, why_skipped(status))
        if time.monotonic() > patience_end:
            reason = "its job completed without running it"
            records.append(job.after, "ended", state=FAILED, reason=reason, exit_code=None)
            continue
        if stop.requested:
            return None
        time.sleep(_POLL_S)
    return None


def _memory_mb(environ: Mapping[str, str], cpus: int | None) -> int | None:
    of_node, of_cpu = (_number(environ.get(f"SLURM_MEM_PER_{each}")) for each in ("NODE", "CPU"))
    return of_cpu * cpus if of_node is None and of_cpu and cpus else of_node


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
