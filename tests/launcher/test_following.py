"""Commands that look at a launch on this machine while it runs, and when it has ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def start(recipe_dir: Path, *arguments: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=recipe_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_launch_from_its_first_stage_to_its_end(
    running: LaunchRecords, recipe_dir: Path, launcher
) -> None:
    told = json.loads(launcher("status", "--json", cwd=recipe_dir).stdout)
    assert [each["state"] for each in told["stages"]] == ["running", "pending", "pending"]
    assert told["stages"][1]["reason"] == "waits for prepare"
    assert told["stages"][0]["node"] == os.uname().nodename
    shown = launcher("list", cwd=recipe_dir).stdout
    assert re.search(
        r"^one +\d{4}-\d\d-\d\d \d\d:\d\d +local +running prepare, 1 of 3$", shown, re.M
    )
    nothing = launcher("logs", "fit", cwd=recipe_dir)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "fit is pending: waits for prepare, and has printed nothing" in nothing.stderr
    assert launcher("wait", "--timeout-min", "0.01", "--quiet", cwd=recipe_dir).returncode == 124
    following = start(recipe_dir, "logs", "-f")
    watching = start(recipe_dir, "status", "--watch")
    waiting = start(recipe_dir, "wait")
    attached = start(recipe_dir, "attach")
    begun = [
        following.stdout.readline(),
        *(each.stdout.readline() for each in (watching, attached)),
    ]
    assert "running prepare, 1 of 3" in begun[1]
    open_gate(recipe_dir)
    said, notes = following.communicate(timeout=60)
    said = begun[0] + said
    assert said.index("first line\x1b]0;title\x07\n") < said.index("last line")  # byte for byte
    assert re.findall(r"^launcher: (?:── )?(.*)$", notes, re.M) == [
        *("prepare", "prepare is done", "fit"),
        *re.findall(r"^launcher: (fit is pending.*)$", notes, re.M),
        *("fit is done", "score"),
        *re.findall(r"^launcher: (score is pending.*)$", notes, re.M),
        "score is done",
    ]
    for process in (watching, waiting, attached):
        shown, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert re.search("^score +done", shown, re.M)
    assert api.status(running).state == "done"
    assert launcher("logs", "prepare", "-n", "1", cwd=recipe_dir).stdout.count("\n") == 1
    assert "last line" in launcher("logs", "one", "prepare", cwd=recipe_dir).stdout
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
    assert api.wait(running, timeout_s=60).in_words == "cancelled at fit, 2 of 3"
    assert launcher("wait", "--quiet", cwd=recipe_dir).returncode == 1
    assert launcher("cancel", "fit", cwd=recipe_dir).returncode == 0
    # Of a stage that never began, there is what its job said.
    assert "cancelled before it started" in launcher("logs", "fit", cwd=recipe_dir).stdout


def test_detaching_leaves_the_launch_to_itself(running: LaunchRecords, recipe_dir: Path) -> None:
    attached = start(recipe_dir, "attach")
    assert "Ctrl-C leaves it to itself" in attached.stdout.readline()
    time.sleep(0.5)
    attached.send_signal(2)
    said, _ = attached.communicate(timeout=30)
    assert attached.returncode == 130
    assert "It goes on. To stop it: " in said
    assert api.status(running).state == "running"
