"""A container whose daemon goes away: told from what its client says, and ended without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.containers.base import ContainerRun, ImageFormat
from launcher.job import guard
from launcher.job.lost_daemon import daemon_went_away, end_what_it_left


def runtime(problem: str | None, image_format: ImageFormat = ImageFormat.OCI) -> Any:
    return SimpleNamespace(name="docker", image_format=image_format, problem=lambda: problem)


SAID = 'time="…" level=error msg="error waiting for container: unexpected EOF"'


@pytest.mark.parametrize(
    ("container", "exit_code", "lines", "told"),
    [
        (runtime(None), 125, ["step 3", SAID], f"daemon went away while the stage ran: {SAID}"),
        (runtime(None), 125, ["docker: invalid reference format"], None),
        (runtime("its daemon does not answer"), 137, [], "its daemon does not answer"),
        (runtime(None), 137, [SAID], None),
        (runtime("its daemon does not answer"), 1, [SAID], None),
        (runtime("no", ImageFormat.SIF), 137, [SAID], None),
    ],
)
def test_what_the_reason_is(
    container: Any, exit_code: int, lines: list[str], told: str | None
) -> None:
    said = daemon_went_away(container, exit_code, lines)
    assert (said is None) if told is None else (said is not None and told in said)


def test_what_a_container_left_is_ended_and_may_save_its_work(tmp_path: Any) -> None:
    saves = f"trap 'touch {tmp_path}/saved; exit' TERM; touch {tmp_path}/up; "
    saves += "while :; do sleep 0.1; done"
    ids = {"LAUNCHER_LAUNCH_ID": "one", "LAUNCHER_OUTPUT_INODE": "7"}
    environment = {**os.environ, **ids}
    # Its standard input never ends: the other end is held here, as by a container's shim.
    guarded = subprocess.Popen(
        [sys.executable, guard.__file__, "5", "bash", "-c", saves],
        env=environment,
        stdin=subprocess.PIPE,
    )
    another = subprocess.Popen(["sleep", "60"], env={**environment, "LAUNCHER_OUTPUT_INODE": "8"})
    with guarded, another:
        end = time.monotonic() + 20
        while not (tmp_path / "up").exists() and time.monotonic() < end:
            time.sleep(0.02)
        run = ContainerRun((), tmp_path, environment={"LAUNCHER_LAUNCH_ID": "one"})
        end_what_it_left(run, 7)
        assert guarded.wait(20) is not None
        assert (tmp_path / "saved").exists()
        assert another.poll() is None
        another.send_signal(signal.SIGKILL)
