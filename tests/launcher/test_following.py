"""Commands that look at a launch on this machine while it runs, and when it has ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from launcher import api
from launcher.records import LaunchRecords
from tests.launcher.conftest import REPOSITORY
from tests.launcher.test_local import until

pytestmark = pytest.mark.slow


@pytest.fixture
def running(recipe_dir: Path, launcher) -> LaunchRecords:
    """Return a launch whose first stage waits for a file before it prints its last line."""
    system = recipe_dir / "src" / "tiny_system.py"
    text = system.read_text()
    waits = (
        "        print('first line\\x1b]0;title\\x07', flush=True)\n"
        "        while not Path(self.exp_dir, 'gate').exists():\n"
        "            time.sleep(0.05)\n"
        "        print('last line')\n"
    )
    head, _, tail = text.partition('        print("preparing")\n')
    system.write_text(head + waits + tail)
    done = launcher("--recipe", str(recipe_dir), "launch_name=one")
    assert done.returncode == 0, done.stderr
    records = LaunchRecords(recipe_dir / ".launches" / "one")
    until(lambda: "first line" in output_of(recipe_dir))
    yield records
    open_gate(recipe_dir)
    api.wait(records, timeout_s=60)


def output_of(recipe_dir: Path) -> str:
    try:
        return (recipe_dir / "exp" / "tiny" / "prepare.out").read_text()
    except FileNotFoundError:
        return ""


def open_gate(recipe_dir: Path) -> None:
    (recipe_dir / "exp" / "tiny" / "gate").touch()


class Started:
    """A command that goes on while the test does; what it prints is kept in files."""

    def __init__(self, recipe_dir: Path, *arguments: str) -> None:
        self._files = {
            name: recipe_dir / f"{'-'.join(arguments)}.{name}" for name in ("stdout", "stderr")
        }
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(path.open("wb")) for name, path in self._files.items()
            }
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher", *arguments],
                cwd=recipe_dir,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                **opened,
            )

    def said(self, name: str = "stdout") -> str:
        return self._files[name].read_text()

    def end(self) -> int:
        return self.process.wait(60)


def test_a_launch_from_its_first_stage_to_its_end(
    running: LaunchRecords, recipe_dir: Path, launcher
) -> None:
    told = json.loads(launcher("status", "--json", cwd=recipe_dir).stdout)
    assert [each["state"] for each in told["stages"]] == ["running", "pending", "pending"]
    assert told["stages"][1]["reason"] == "waits for prepare"
    assert told["stages"][0]["node"] == os.uname().nodename
    shown = launcher("list", cwd=recipe_dir).stdout
    assert re.search(
        r"^one +\d{4}-\d\d-\d\d \d\d:\d\d +local +running prepare, 1 of 3 +[\d.]+ s +3  tiny$",
        shown,
        re.M,
    )
    nothing = launcher("logs", "fit", cwd=recipe_dir)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "fit is pending: waits for prepare, and has printed nothing" in nothing.stderr
    assert launcher("wait", "--timeout-min", "0.01", "--quiet", cwd=recipe_dir).returncode == 124
    following = Started(recipe_dir, "logs", "-f")
    watching = Started(recipe_dir, "status", "--watch")
    waiting = Started(recipe_dir, "wait")
    attached = Started(recipe_dir, "attach")
    until(lambda: "first line" in following.said())
    until(lambda: "running prepare, 1 of 3" in watching.said())
    until(lambda: "prepare          running" in attached.said())
    open_gate(recipe_dir)
    assert following.end() == 0
    said = following.said()
    assert said.index("first line\x1b]0;title\x07\n") < said.index("last line")  # byte for byte
    notes = re.findall(r"^launcher: (?:── )?(.*)$", following.said("stderr"), re.M)
    assert [note for note in notes if "pending" not in note] == [
        *("prepare", "prepare is done", "fit", "fit is done", "score", "score is done")
    ]
    for command in (watching, waiting, attached):
        assert command.end() == 0, command.said("stderr")
        assert re.search("^score +done", command.said(), re.M)
    assert api.status(running).state == "done"
    assert launcher("logs", "prepare", "-n", "1", cwd=recipe_dir).stdout.count("\n") == 1
    named = launcher("logs", "one", "prepare", cwd=recipe_dir)
    assert "last line" in named.stdout
    assert named.stderr == ""
    unnamed = launcher("logs", cwd=recipe_dir)
    assert unnamed.stderr == "launcher: ── score\n"  # whose it is, beside it
    assert "[START] stage: score" in unnamed.stdout
    assert "[START] stage: prepare" in launcher("logs", "prepare", "--log", cwd=recipe_dir).stdout


def test_cancelling_a_stage_leaves_those_before_it(
    running: LaunchRecords, recipe_dir: Path, launcher
) -> None:
    done = launcher("cancel", "fit", cwd=recipe_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cancelling fit, score" in done.stdout
    states = [each.status.state for each in api.status(running).stages]
    assert states == ["running", "cancelled", "cancelled"]
    open_gate(recipe_dir)
    assert api.wait(running, timeout_s=60).in_words == "cancelled: fit (stage 2 of 3)"
    assert launcher("wait", "--quiet", cwd=recipe_dir).returncode == 1
    assert launcher("cancel", "fit", cwd=recipe_dir).returncode == 0
    # Of a stage that never began, there is what its job said.
    assert "cancelled before it started" in launcher("logs", "fit", cwd=recipe_dir).stdout


def test_detaching_leaves_the_launch_to_itself(running: LaunchRecords, recipe_dir: Path) -> None:
    attached = Started(recipe_dir, "attach")
    until(lambda: "prepare          running" in attached.said())
    attached.process.send_signal(signal.SIGINT)
    assert attached.end() == 130
    assert "Ctrl-C leaves it to itself" in attached.said()
    assert "It goes on. To stop it: " in attached.said()
    assert api.status(running).state == "running"
