"""A terminal that is closed: what was submitted to this machine goes on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.records import LaunchRecords
from launcher.status import chain_status
from tests.cluster.faults.table import HANGUP
from tests.cluster.slurm_launches import until
from tests.conftest import HOSTILE_NAME
from tests.launcher.conftest import write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.faults(HANGUP)]
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("options", [[], ["--follow"]], ids=["submitted", "followed"])
@pytest.mark.parametrize("how", ["closed", "SIGHUP to the shell's jobs"])
def test_the_chain_goes_on(tmp_path: Path, options: list[str], how: str) -> None:
    recipe = write_recipe(tmp_path / HOSTILE_NAME / "tiny" / "asr")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TINY_SLEEP_S": "3"}
    launcher = [sys.executable, "-m", "launcher", "--container", "none", *options]
    ours, theirs = pty.openpty()
    # A shell of its own on the terminal, as ssh starts one; it stays when the launcher has ended.
    script = '"$@"; echo submitted; sleep 60'
    shell = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-c", script, "sh", *launcher],
        cwd=recipe,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with shell:
        pid_file = recipe / "exp" / "tiny" / "prepare.pid"
        until(pid_file.exists, 60, "the start of the first stage")
        if how != "closed":
            os.killpg(shell.pid, signal.SIGHUP)
        os.close(ours)  # the kernel sends SIGHUP to the session's foreground
        shell.wait(20)
    (directory,) = (recipe / ".launches").iterdir()
    records = LaunchRecords(directory)
    until(lambda: all(each.has_ended for each in chain_status(records)), 60)
    assert [each.state for each in chain_status(records)] == ["done"] * 3
