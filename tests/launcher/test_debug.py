"""Stages in this terminal: what is typed and shown, what is on record, and what is left."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.records import LAUNCH, LaunchRecords
from launcher.status import JobStatus, chain_status
from tests.launcher.person import CTRL_BACKSLASH, CTRL_C, Person
from tests.launcher.test_local import disclaim

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_HERE = ["-m", "launcher", "--cluster", "debug", "--container", "none"]


def rewrite_stage(recipe_dir: Path, stage: str, *lines: str) -> None:
    """Have a stage do something else."""
    system = recipe_dir / "src" / "tiny_system.py"
    head, _, rest = system.read_text().partition(f"    def {stage}(self):\n")
    _, _, after = rest.partition("\n    def ")
    body = "".join(f"        {line}\n" for line in lines)
    tail = f"\n    def {after}" if after else ""
    system.write_text(f"{head}    def {stage}(self):\n{body}{tail}")


def records_of(recipe_dir: Path) -> LaunchRecords:
    (directory,) = (recipe_dir / ".launches").iterdir()
    return LaunchRecords(directory)


def ends(recipe_dir: Path) -> dict[str, tuple[str, str]]:
    """Return state and reason of each stage."""
    return {each.stage: (each.state, each.reason) for each in chain_status(records_of(recipe_dir))}


def metadata_of(recipe_dir: Path, stage: str) -> dict[str, Any]:
    path = recipe_dir / "exp" / "tiny" / f"{stage}.metadata.json"
    metadata: dict[str, Any] = json.loads(path.read_text())
    return metadata


def output_of(recipe_dir: Path, stage: str) -> str:
    return (recipe_dir / "exp" / "tiny" / f"{stage}.out").read_bytes().decode()


def processes_of(recipe_dir: Path) -> list[int]:
    """Return the processes whose working directory is the recipe."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == recipe_dir:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state not in "ZX" else []
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return found


def until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


Debug = Callable[..., Person]


@pytest.fixture
def debug(recipe_dir: Path, tmp_path: Path) -> Iterator[Debug]:
    """Return a function that has a person launch the recipe in the foreground."""
    persons: list[Person] = []

    def start(*options: str, code: str = "", **variables: str) -> Person:
        launch = ["-c", code, *LAUNCH_HERE[2:]] if code else LAUNCH_HERE
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
        command = [sys.executable, *launch, "--recipe", str(recipe_dir), *options]
        persons.append(Person(command, cwd=tmp_path, env=environment))
        return persons[-1]

    yield start
    for person in persons:
        person.__exit__()


def test_a_breakpoint_and_all_that_a_launch_leaves(recipe_dir: Path, debug: Debug) -> None:
    rewrite_stage(recipe_dir, "fit", "steps = 40", "breakpoint()", "return {'steps': steps}")
    person = debug()
    person.reads(r"^launch .*\.launches/[\w-]+\r\n")
    person.reads("Ctrl-C interrupts the stage")
    person.reads("── prepare ──")
    person.reads("preparing")
    person.reads("── fit ──")
    person.reads(r"\(Pdb\) ")
    shown = subprocess.run(
        [sys.executable, "-m", "launcher", "status", "--recipe", str(recipe_dir)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    ).stdout
    assert re.search("^fit +running ", shown, re.MULTILINE)
    person.enter("p 1+1")
    person.reads("2\r\n")
    person.enter("steps = 41")
    with (recipe_dir / "conf" / "training.yaml").open("a") as config:
        config.write("# edited meanwhile\n")
    person.enter("c")
    person.reads("── score ──")
    changed = "launcher: the code has changed since this launch was submitted: conf/training.yaml"
    person.reads(f"^{changed}\r\n")
    assert output_of(recipe_dir, "score").startswith(f"{changed}\n")
    person.reads(r"^stage +state +time +log\r\n")
    for stage in ("prepare", "fit", "score"):
        person.reads(rf"^{stage} +done .*exp/tiny/{stage}.log\r\n")
    person.reads("fit +steps 41")
    person.reads("WER test 0.0 %")
    assert person.leaves() == 0
    assert person.modes() == person.modes_before
    assert "(Pdb) p 1+1\r\n2\r\n" in output_of(recipe_dir, "fit")
    assert "preparing\r\n" in output_of(recipe_dir, "prepare")
    assert {state for state, _ in ends(recipe_dir).values()} == {"done"}
    events = [event["event"] for event in records_of(recipe_dir).events(LAUNCH)]
    assert events == ["submitted"] * 3 + ["released"]
    metadata = metadata_of(recipe_dir, "fit")
    assert (metadata["state"], metadata["results"]) == ("done", {"steps": 41})
    job = metadata["job"]
    assert (job["cluster"], job["after"], job["exit_code"]) == ("debug", "prepare", 0)
    assert processes_of(recipe_dir) == []


def test_a_window_and_a_progress_bar(recipe_dir: Path, debug: Debug) -> None:
    rewrite_stage(
        recipe_dir,
        "fit",
        "from tqdm import tqdm",
        "for _ in tqdm(range(3), colour='green', dynamic_ncols=True): time.sleep(0.2)",
        "print('window', *os.get_terminal_size())",
    )
    person = debug("--stages", "fit")
    person.resize(20, 77)
    bar = person.reads("100%\\|\x1b\\[32m█+\x1b\\[0m\\| 3/3 [^\\r]*\\]", colours=True)[0]
    assert len(re.sub("\x1b\\[[0-9;]*m", "", bar)) in (76, 77)
    person.reads("window 77 20")
    assert person.leaves() == 0
    assert bar in output_of(recipe_dir, "fit")


def test_ctrl_c_interrupts_the_stage_and_skips_the_rest(recipe_dir: Path, debug: Debug) -> None:
    saving = "print('saving', flush=True); time.sleep(0.3); print('saved'); raise"
    rewrite_stage(
        recipe_dir,
        "fit",
        "try: print('fitting', flush=True); [time.sleep(0.05) for _ in range(1200)]",
        f"except BaseException: {saving}",
    )
    person = debug()
    person.reads("fitting")
    person.type(CTRL_C)
    person.reads("saved")
    person.reads("^fit +cancelled")
    person.reads("^score +skipped +fit was cancelled")
    assert person.leaves() == 130
    assert person.modes() == person.modes_before
    assert ends(recipe_dir) == {
        "prepare": ("done", ""),
        "fit": ("cancelled", "interrupted by Ctrl-C"),
        "score": ("skipped", "fit was cancelled"),
    }
    metadata = metadata_of(recipe_dir, "fit")
    assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", "SIGINT")
    assert metadata["job"]["reason"] == "interrupted by Ctrl-C"
    assert not (recipe_dir / "exp" / "tiny" / "score.out").exists()


def test_ctrl_backslash_kills_the_stage(recipe_dir: Path, debug: Debug) -> None:
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    rewrite_stage(recipe_dir, "fit", deaf, "print('fitting', flush=True)", "time.sleep(60)")
    person = debug()
    person.reads("fitting")
    person.type(CTRL_C)
    person.type(CTRL_BACKSLASH)
    person.reads("fit failed: killed by SIGQUIT")
    assert person.leaves() == 1
    assert ends(recipe_dir)["score"] == ("skipped", "fit failed")
    assert metadata_of(recipe_dir, "fit")["state"] == "failed"
    assert processes_of(recipe_dir) == []


def test_a_failed_stage(recipe_dir: Path, debug: Debug) -> None:
    person = debug(TINY_FAIL="1")
    person.reads("RuntimeError: the disk is on fire")
    person.reads("^prepare +failed")
    person.reads("^fit +skipped +prepare failed")
    person.reads("prepare failed: exit status 1")
    assert person.leaves() == 1
    assert "RuntimeError: the disk is on fire\r\n" in output_of(recipe_dir, "prepare")
    assert "── fit ──" not in person.seen


def test_leaving_the_debugger_fails_the_stage(recipe_dir: Path, debug: Debug) -> None:
    rewrite_stage(recipe_dir, "prepare", "breakpoint()", "print('on')")
    person = debug()
    person.reads(r"\(Pdb\) ")
    person.enter("q")
    person.reads("^prepare +failed")
    assert person.leaves() == 1


def test_what_a_stage_left_behind_ends_with_it(recipe_dir: Path, debug: Debug) -> None:
    rewrite_stage(
        recipe_dir, "prepare", "subprocess.Popen(['sleep', '300'], start_new_session=True)"
    )
    person = debug("--stages", "prepare")
    assert person.leaves() == 0
    assert processes_of(recipe_dir) == []


def sleeping(recipe_dir: Path, debug: Debug) -> Person:
    person = debug(TINY_SLEEP_S="60")
    until((recipe_dir / "exp" / "tiny" / "prepare.pid").exists)
    assert len(processes_of(recipe_dir)) >= 3  # watchdog, stage, its detached child
    return person


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_the_launch_in_good_order(
    recipe_dir: Path, debug: Debug, signum: signal.Signals
) -> None:
    person = sleeping(recipe_dir, debug)
    person.process.send_signal(signum)
    person.reads("^prepare +cancelled")
    assert person.leaves() == 128 + signum
    assert person.modes() == person.modes_before
    assert ends(recipe_dir)["prepare"][0] == "cancelled"
    assert ends(recipe_dir)["fit"] == ("skipped", "prepare was cancelled")
    assert metadata_of(recipe_dir, "prepare")["state"] == "interrupted"
    assert processes_of(recipe_dir) == []


def test_a_closed_window(recipe_dir: Path, debug: Debug) -> None:
    person = sleeping(recipe_dir, debug)
    person.close_window()
    assert person.process.wait(20) == 128 + signal.SIGHUP
    assert ends(recipe_dir)["prepare"][0] == "cancelled"
    assert ends(recipe_dir)["score"] == ("skipped", "prepare was cancelled")
    assert processes_of(recipe_dir) == []


def test_a_killed_launcher_leaves_nothing_behind(recipe_dir: Path, debug: Debug) -> None:
    person = sleeping(recipe_dir, debug)
    person.process.kill()
    person.process.wait()
    until(lambda: not processes_of(recipe_dir))
    assert person.modes() == person.modes_before
    assert ends(recipe_dir) == {
        "prepare": (
            "failed",
            "its process is gone without a result: killed by SIGKILL, or the machine stopped",
        ),
        "fit": ("skipped", "prepare failed"),
        "score": ("skipped", "prepare failed"),
    }
    assert metadata_of(recipe_dir, "prepare")["state"] == "interrupted"


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_cancel_from_another_terminal(
    recipe_dir: Path, debug: Debug, launcher, options: list[str]
) -> None:
    person = sleeping(recipe_dir, debug)
    done = launcher("cancel", "--recipe", str(recipe_dir), *options)
    assert done.returncode == 0, done.stdout
    states = {stage: state for stage, (state, _) in ends(recipe_dir).items()}
    assert states["prepare"] == "cancelled"
    assert states["score"] in ("cancelled", "skipped")
    assert person.leaves() == (-signal.SIGKILL if options else 128 + signal.SIGTERM)
    until(lambda: not processes_of(recipe_dir))
    assert person.modes() == person.modes_before


BETWEEN_TWO = """\
import os, signal, sys
from launcher.job import stage_job
from launcher.cli import main

class Pressed(stage_job.StageJob):
    def __call__(self):
        try:
            super().__call__()
        finally:
            if self.job.stage == "prepare":
                os.kill(os.getpid(), int(os.environ["PRESSED"]))

from launcher.clusters import debug
debug.StageJob = Pressed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_stages(
    recipe_dir: Path, debug: Debug, signum: signal.Signals
) -> None:
    person = debug(code=BETWEEN_TWO, PRESSED=str(int(signum)))
    assert person.leaves() == 128 + signum
    assert ends(recipe_dir) == {
        "prepare": ("done", ""),
        "fit": ("cancelled", "cancelled before it started"),
        "score": ("cancelled", "cancelled before it started"),
    }


BROKEN = """\
import sys
from launcher.job import stage_job
from launcher.processes import terminal
from launcher.cli import main

def attend(attended, output, *, in_container):
    with terminal._raw(0):
        raise RuntimeError("a mistake in the launcher")

terminal.attend = attend
sys.exit(main(sys.argv[1:]))
"""


def test_a_mistake_in_the_launcher_itself_is_on_record(recipe_dir: Path, debug: Debug) -> None:
    person = debug(code=BROKEN, TINY_SLEEP_S="60")
    person.reads("RuntimeError: a mistake in the launcher")
    assert person.leaves() == 1
    assert person.modes() == person.modes_before
    reason = "its job failed by itself: RuntimeError: a mistake in the launcher"
    assert ends(recipe_dir) == {
        "prepare": ("failed", reason),
        "fit": ("skipped", "prepare failed"),
        "score": ("skipped", "prepare failed"),
    }
    until(lambda: not processes_of(recipe_dir))


SHORT_MINUTES = """\
import sys
from dataclasses import replace
from launcher.cli import main
from launcher.clusters import debug

class Short(debug.DebugCluster):
    def submit(self, job, launch, records):
        minutes = 0.03 if job.stage == "prepare" else 0.08
        resources = replace(job.settings.resources, timeout_min=minutes)
        return super().submit(
            replace(job, settings=replace(job.settings, resources=resources)), launch, records
        )

debug.Implementation = Short
sys.exit(main(sys.argv[1:]))
"""


def test_a_stage_that_runs_out_of_time(recipe_dir: Path, debug: Debug) -> None:
    rewrite_stage(recipe_dir, "fit", "time.sleep(60)")
    person = debug(code=SHORT_MINUTES)
    person.reads(r"fit failed: out of time: its limit is 0.08 min \(killed by SIGTERM\)")
    assert person.leaves() == 1
    assert ends(recipe_dir)["prepare"] == ("done", "")
    assert ends(recipe_dir)["score"] == ("skipped", "fit failed")


def test_gpus_are_waited_for_and_ctrl_c_ends_the_wait(
    recipe_dir: Path, debug: Debug, tmp_path: Path
) -> None:
    rewrite_stage(
        recipe_dir, "fit", "print('GPUs', os.environ['CUDA_VISIBLE_DEVICES']); breakpoint()", "pass"
    )
    options = [
        *("--stages", "fit", "stages.fit.gpus_per_node=2", "cluster.gpus=[4,5,6]"),
        f"cluster.gpu_locks={json.dumps(str(tmp_path / 'locks'))}",
    ]
    first = debug(*options, "launch_name=first")
    first.reads("GPUs 4,5")
    disclaim(recipe_dir)
    second = debug(*options, "launch_name=second")
    second.reads("fit waits for 2 GPUs")
    second.type(CTRL_C)
    second.reads("^fit +cancelled +cancelled before it started")
    assert second.leaves() == 130
    disclaim(recipe_dir)
    third = debug(*options, "launch_name=third")
    third.reads("fit waits for 2 GPUs")
    first.reads(r"\(Pdb\) ")
    first.enter("c")
    assert first.leaves() == 0
    third.reads("GPUs 4,5")
    third.reads(r"\(Pdb\) ")
    third.enter("c")
    assert third.leaves() == 0


def test_without_a_terminal_all_is_shown_and_kept(recipe_dir: Path, launcher) -> None:
    options = ["--cluster", "debug", "--container", "none", "--recipe", str(recipe_dir)]
    done = launcher(*options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ctrl-C" not in done.stdout, "there are no keys to press"
    order = ["launch ", "prepare ──", "preparing", "fit ──", "score ──", "stage ", "WER test 0.0 %"]
    places = [done.stdout.index(each) for each in order]
    assert places == sorted(places)
    for stage in ("prepare", "fit", "score"):
        assert output_of(recipe_dir, stage) in done.stdout
    assert {state for state, _ in ends(recipe_dir).values()} == {"done"}
    failed = launcher(*options, TINY_FAIL="1")
    assert failed.returncode == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_without_a_terminal_signals_end_it_just_so(
    recipe_dir: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, *LAUNCH_HERE, "--recipe", str(recipe_dir)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_SLEEP_S": "60"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        until((recipe_dir / "exp" / "tiny" / "prepare.pid").exists)
        process.send_signal(signum)
        assert process.stdout is not None
        shown = process.stdout.read()
    is_killed = signum == signal.SIGKILL
    assert process.returncode == (-signum if is_killed else 128 + signum)
    until(lambda: not processes_of(recipe_dir))
    metadata = metadata_of(recipe_dir, "prepare")
    expected = "SIGTERM" if is_killed else signum.name
    assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", expected)
    status: JobStatus = chain_status(records_of(recipe_dir))[0]
    assert status.state == ("failed" if is_killed else "cancelled")
    if not is_killed:
        assert re.search("^score +skipped +prepare was cancelled$", shown, re.MULTILINE)


def test_who_stops_reading_stops_nothing(recipe_dir: Path, tmp_path: Path) -> None:
    command = shlex.join([sys.executable, *LAUNCH_HERE, "--recipe", str(recipe_dir)])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {state for state, _ in ends(recipe_dir).values()} == {"done"}
