"""What it costs to hand SLURM a chain of ten stages, as a ratio to a loop of sbatch in a shell.

Both submit the same scripts, chained in the same way, in the same run and in turn. The jobs ask to
begin in an hour, so that nothing runs, and are cancelled after each round. It needs the rehearsal
cluster (``make cluster-up``). With ``--check``, more than 1.5 times is an error.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launcher import submission
from launcher.clusters import slurm
from launcher.config import LaunchConfig
from launcher.containers.none import NoContainer
from launcher.containers.none import Settings as OnTheHost
from launcher.launch import Launch, build_launch
from launcher.plan import PlannedStage, StagePlan
from launcher.recipe import Recipe
from launcher.records import LaunchRecords
from launcher.slurm.script import script_text
from launcher.snapshot import plan_snapshot
from tests.cluster.slurm_launches import write_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_STAGES, ROUNDS, ALLOWED = 10, 15, 1.5
SHELL = "sbatch in a loop of bash"
JOBS = "the launcher: jobs, from the first to the release"
WHOLE = "… with its record, git and the copy of its code"
TYPED = "… with Python's start, planning and the checks"


def rehearsal() -> dict[str, str]:
    """Return the environment that chooses the rehearsal cluster's SLURM without accounts."""
    folder = Path(os.environ.get("REHEARSAL_DIR") or "/var/lib/launcher-rehearsal")
    try:
        data = json.loads((folder / "env.json").read_text())
    except FileNotFoundError:
        sys.exit(f"no rehearsal cluster at {folder}; as root: make cluster-up")
    path = os.pathsep.join([*data["path"], os.environ["PATH"]])
    return {**data["environment"], "PATH": path}


def make_recipe(folder: Path) -> Path:
    """Return a recipe of ten stages."""
    recipe = write_recipe(folder, [f"stage{n}" for n in range(NUM_STAGES)])
    with (recipe / "src" / "tiny_system.py").open("a") as system:
        system.write("\nfor name in STAGES:\n    setattr(TinySystem, name, lambda self: None)\n")
    return recipe


def whole_command(recipe: Path, number: int) -> float:
    """Return the seconds of the command as it is typed: planning, checks and submission."""
    options = ["--cluster", "slurm", "--container", "none", f"launch_name=whole{number}"]
    command = [sys.executable, "-m", "launcher", *options, "cluster.sbatch.begin='now+1hour'"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LAUNCHER_CONFIG": os.devnull}
    start = time.perf_counter()
    subprocess.run(command, cwd=recipe, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def make_launch(folder: Path, name: str) -> Launch:
    """Return a launch of ten stages, none of which is ever run."""
    stages = tuple(PlannedStage(f"stage{n}", folder / "exp", {}) for n in range(NUM_STAGES))
    plan = StagePlan(folder, "src.system.System", folder / "exp", stages)
    later = slurm.Settings(sbatch={"begin": "now+1hour"})
    config = LaunchConfig(cluster=later, container=OnTheHost(), snapshot="none")
    container = NoContainer(config.container)
    directory = folder / ".launches" / name
    recipe = Recipe(folder, folder)
    return build_launch(recipe, plan, config, container, [], directory=directory, pins={})


class Timed(slurm.SlurmCluster):
    """Notes how long the jobs alone took to submit."""

    began = ended = 0.0

    def submit(self, *arguments: object, **more: object) -> slurm.JobHandle:
        """Note when the first job is submitted."""
        self.began = self.began or time.perf_counter()
        return super().submit(*arguments, **more)  # type: ignore[arg-type]

    def release(self, records: LaunchRecords) -> None:
        """Note when the first job is released."""
        super().release(records)
        self.ended = time.perf_counter()


def through_launcher(launch: Launch) -> tuple[float, float]:
    """Return the seconds from the first job to the release, and those of all that ``submit`` does.

    Besides, that copies the launcher's code, looks at git, and writes the record.
    """
    cluster = Timed(launch.config.cluster)
    folder = launch.recipe.directory
    snapshot = plan_snapshot("none", [folder], [folder], launch.directory / "snapshot")
    start = time.perf_counter()
    submission.submit(launch, cluster, command_line=["launcher"], snapshot=snapshot)
    return cluster.ended - cluster.began, time.perf_counter() - start


def through_a_shell(scripts: Path) -> float:
    """Return the seconds that a loop of sbatch in a shell takes with the same scripts."""
    loop = (
        "how=--hold\n"
        f"for script in {shlex.quote(str(scripts))}/*.sh; do\n"
        '  id=$(sbatch --parsable $how "$script") || exit\n'
        '  how="--dependency=afterok:$id --kill-on-invalid-dep=yes"\n'
        "done\n"
    )
    start = time.perf_counter()
    subprocess.run(["bash", "-c", loop], check=True)
    return time.perf_counter() - start


def write_scripts(launch: Launch, folder: Path) -> Path:
    """Write the launch's scripts, to be read in order."""
    folder.mkdir(parents=True)
    where = launch.directory / "submitit"
    for number, job in enumerate(launch.jobs):
        script = script_text(where, sys.executable, job, launch.experiment)
        (folder / f"{number}.sh").write_text(script)
    return folder


@contextmanager
def cancelled_afterwards(folder: Path) -> Iterator[None]:
    """Cancel every job whose working directory is below the folder."""
    try:
        yield
    finally:
        listing = ["squeue", "--noheader", "--format=%i|%Z"]
        shown = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        lines = [line.partition("|") for line in shown.splitlines()]
        if jobs := [job for job, _, where in lines if where.startswith(f"{folder}/")]:
            subprocess.run(["scancel", *jobs], check=False)


def measure(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the seconds of each round, by what was measured; who comes first changes."""
    os.environ.update(rehearsal())
    measured: dict[str, list[float]] = {name: [] for name in (SHELL, JOBS, WHOLE, TYPED)}
    folder = Path(tempfile.mkdtemp(prefix="launcher-bench-")).resolve()
    recipe = make_recipe(folder / "recipe")

    def by_launcher(number: int) -> None:
        jobs, whole = through_launcher(make_launch(folder, f"round{number}"))
        measured[JOBS].append(jobs)
        measured[WHOLE].append(whole)

    def by_shell(number: int) -> None:
        launch = make_launch(folder, f"shell{number}")
        scripts = write_scripts(launch, folder / "scripts" / str(number))
        measured[SHELL].append(through_a_shell(scripts))

    def by_command(number: int) -> None:
        measured[TYPED].append(whole_command(recipe, number))

    ways = [by_launcher, by_shell, by_command]
    try:
        for number in range(rounds):
            for way in (*ways[number % 3 :], *ways[: number % 3]):
                with cancelled_afterwards(folder):
                    way(number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return measured


def main() -> None:
    """Measure all of it in turn, several times, and print medians and ratios."""
    measured = measure()
    medians = {name: statistics.median(values) for name, values in measured.items()}
    print(f"a chain of {NUM_STAGES} stages, median of {ROUNDS} rounds in turn")
    for name, median in medians.items():
        print(f"  {name:52} {1000 * median:6.0f} ms  {median / medians[SHELL]:5.2f} x")
    if "--check" in sys.argv[1:] and medians[JOBS] > ALLOWED * medians[SHELL]:
        sys.exit(f"more than {ALLOWED} x")


if __name__ == "__main__":
    main()
