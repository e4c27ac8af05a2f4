"""The script that sbatch is given for a stage: pure text, which names no job id.

sbatch reads its options from the ``#SBATCH`` lines. There it takes quotes as a shell does, but a
backslash as an escape everywhere, single quotes included; and in the names of outputs ``%`` begins
a pattern, in the folder's part of the path too (all tried with Slurm 22.05).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError
from launcher.job.copied_code import code_dir
from launcher.slurm.daemons import SCRIPT_PARENT
from launcher.slurm.options import check_srun_arguments, option_name

if TYPE_CHECKING:
    from launcher.clusters.slurm import Settings
    from launcher.launch import Job

# Ignored by a process that does not ask for it. Slurm sends the warning to every process of a job,
# and submitit's own choice, SIGUSR2, kills those that do not expect it.
WARNING_SIGNAL = "URG"
# The module that checks what a job loads, and loads it.
JOB_PROCESS = "launcher.job.process"
# The module that has the last word on a job that failed.
EPILOGUE = "launcher.slurm.epilogue"
# Of the time limit, what is left when a stage is warned: a stage of minutes has to do something.
_WARNED_PART = 1 / 4


def sbatch_options(job: Job, experiment: str) -> dict[str, Any]:
    """Return the options of a stage's script by their long names, without the paths.

    Raises:
        ConfigError: settings contradict each other, or are not for the person to give.
    """
    settings: Settings = job.settings.cluster
    resources = job.settings.resources
    if settings.gres and resources.gpus_per_node:
        raise ConfigError(
            f"{job.stage} asks for GPUs twice: gres={settings.gres} and "
            f"gpus_per_node={resources.gpus_per_node}. Leave one of them out."
        )
    delay_s = warning_delay_s(job)
    options: dict[str, Any] = {
        "job-name": f"{experiment}.{job.stage}",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "gres": settings.gres,
        "constraint": settings.constraint,
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": resources.cpus_per_task,
        "gpus-per-node": resources.gpus_per_node or None,
        "mem": None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}M",
        "time": resources.timeout_min,
        # Said either way: whether jobs are put back into the queue otherwise depends on the site.
        "requeue" if settings.requeue else "no-requeue": True,
        "signal": f"{WARNING_SIGNAL}@{delay_s:.0f}" if delay_s else None,
        "open-mode": "append",
    }
    for given, value in settings.sbatch.items():
        name = option_name(str(given), value, job.stage)
        options[name] = ",".join(map(str, value)) if isinstance(value, list) else value
    return {name: value for name, value in options.items() if value not in (None, False, "")}


def warning_delay_s(job: Job) -> float:
    """Return the seconds before its time limit at which a stage is warned; 0 for never."""
    settings: Settings = job.settings.cluster
    timeout_min = job.settings.resources.timeout_min
    if timeout_min is None:
        return settings.signal_delay_s
    return min(settings.signal_delay_s, timeout_min * 60 * _WARNED_PART)


def srun_arguments(job: Job) -> list[str]:
    """Return the arguments of srun, besides those that every job has.

    Raises:
        ConfigError: one is not for the person to give.
    """
    settings: Settings = job.settings.cluster
    resources = job.settings.resources
    arguments = list(map(str, settings.srun_args))
    check_srun_arguments(arguments)
    if resources.cpus_per_task is not None:
        # srun has not taken the job's own number since 22.05
        arguments.insert(0, f"--cpus-per-task={resources.cpus_per_task}")
    if resources.nodes > 1:
        arguments.insert(0, "--kill-on-bad-exit=1")
    return arguments


def script_text(folder: Path, python: str, job: Job, experiment: str) -> str:
    """Return the script of a stage.

    Args:
        folder: of submitit's files; the job's working directory.
        python: interpreter of the job process.
        job: the stage.
        experiment: its name is the first part of the job's.

    Raises:
        ConfigError: as :func:`sbatch_options`; or a name holds what sbatch has no way to take.
    """
    settings: Settings = job.settings.cluster
    # In a path with a backslash, slurmstepd takes that away and replaces no pattern: the script
    # opens its output itself, in its working directory.
    is_expressible = "\\" not in str(folder)
    output = f"{str(folder).replace('%', '%%')}/%j_0_log.out" if is_expressible else "/dev/null"
    options = {"chdir": folder, "output": output, **sbatch_options(job, experiment)}
    setup = [] if is_expressible else ['exec >> "${SLURM_JOB_ID}_0_log.out" 2>&1']
    code = shlex.quote(str(code_dir(folder.parent)))
    python_path = f'PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    epilogue = shlex.join([python, "-m", EPILOGUE, job.stage])
    back = f"cd {shlex.quote(str(folder))}"
    if settings.setup:
        # A line that ends the script, be it with 0, leaves a stage that has not run.
        setup += [
            "when_setup_ends_it() {",
            "    status=$?",
            '    [ -n "${setup_is_done:-}" ] && return',
            f"    {back}",
            f"    {python_path} exec {epilogue} $status",
            "}",
            "trap when_setup_ends_it EXIT",
        ]
        setup += [*settings.setup, "setup_is_done=yes", back]
    srun = ["srun", "--unbuffered", "--open-mode=append", "--output=%j_%t_log.out"]
    job_process = [python, "-u", "-m", JOB_PROCESS, "/proc/self/cwd"]
    return "\n".join(
        [
            "#!/bin/bash",
            *(_sbatch_line(name, options[name], job.stage) for name in sorted(options)),
            "",
            *setup,
            f"export {python_path}",
            "export SUBMITIT_EXECUTOR=slurm",
            f"export {SCRIPT_PARENT}=$PPID",
            f"{shlex.join([*srun, *srun_arguments(job), *job_process])} && exit",
            f"exec {epilogue} $?",
            "",
        ]
    )


def _sbatch_line(name: str, value: Any, stage: str) -> str:
    if value is True:
        return f"#SBATCH --{name}"
    text = str(value)
    if "\n" in text:
        raise ConfigError(
            f"{stage}: SLURM has no way to take a line break, which --{name} would hold: {text!r}"
        )
    return f"#SBATCH --{name}={_quoted(text)}"


def _quoted(text: str) -> str:
    return shlex.quote(text).replace("\\", "\\\\")


def sbatch_command(options: Sequence[str], script: str) -> str:
    """Return the command that hands the script to sbatch, as it can be typed into a shell."""
    return f"{shlex.join(['sbatch', *options])} <<'SCRIPT'\n{script}SCRIPT\n"
