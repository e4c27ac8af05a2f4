"""What a runtime that does not work here is said to lack, and what to do about it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from launcher import registry
from launcher.containers import _client, apptainer, charliecloud, docker, podman
from launcher.errors import ConfigError

NAMES = ["docker", "podman", "apptainer", "charliecloud", "enroot"]


@pytest.mark.parametrize("name", NAMES)
def test_a_program_that_is_not_there(name: str) -> None:
    module = registry.load("containers", name)
    problem = module.Implementation(module.Settings(executable="/no/such")).problem()
    assert problem is not None
    assert problem.startswith("there is no program '/no/such' here. ")
    assert "container.executable=PATH" in problem


DAEMON_DOWN = "echo 'Cannot connect to the Docker daemon at unix:///x. Is it running?' >&2; exit 1"
FORBIDDEN = "echo 'Got permission denied while trying to connect' >&2; exit 1"


@pytest.mark.parametrize(
    ("script", "settings", "expected"),
    [
        ("echo '20.10.24 [name=seccomp,profile=default]'", {}, None),
        ("echo '28.1 [name=seccomp name=rootless]'", {"rootless": True}, None),
        ("echo '20.10.24 [name=userns]'", {"run_options": ["--userns=host"]}, None),
        (DAEMON_DOWN, {}, r"does not answer \(Cannot connect .* DOCKER_HOST"),
        ("echo ' []'; echo 'cannot connect' >&2", {}, "does not answer"),
        (FORBIDDEN, {}, "usermod -aG docker"),
        ("echo '28.1 [name=rootless]'", {}, "container.rootless=true"),
        ("echo '28.1 []'", {"rootless": True}, "container.rootless=false"),
        ("echo '28.1 [name=userns]'", {}, r"container.run_options=\[--userns=host\]"),
    ],
)
def test_docker(tmp_path: Path, script: str, settings: dict, expected: str | None) -> None:
    executable = program(tmp_path / "docker", script)
    runtime = docker.Docker(docker.Settings(executable=executable, **settings))
    told(runtime.problem(), expected)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo false", None),
        ("case $1 in info) echo true;; *) printf '0 1000 1\\n1 100000 65536\\n';; esac", None),
        ("case $1 in info) echo true;; *) echo '0 1000 1';; esac", "usermod --add-subuids"),
        ("echo 'cannot clone: Operation not permitted' >&2; exit 125", "cannot clone"),
    ],
)
def test_podman(tmp_path: Path, script: str, expected: str | None) -> None:
    executable = program(tmp_path / "podman", script)
    told(podman.Podman(podman.Settings(executable=executable)).problem(), expected)


@pytest.mark.parametrize("setuid", [False, True])
def test_apptainer_without_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setuid: bool
) -> None:
    monkeypatch.setattr(apptainer, "namespace_problem", lambda _environ: "unshare failed")
    if setuid:
        starter = tmp_path / "apptainer" / "bin" / "starter-suid"
        starter.parent.mkdir(parents=True)
        starter.touch()
    script = (
        f"case $1 in buildcfg) echo LIBEXECDIR='{tmp_path}';; *) echo apptainer version 1;; esac"
    )
    settings = apptainer.Settings(executable=program(tmp_path / "it", script), userns=True)
    expected = None if setuid else r"user namespaces here \(unshare failed\).*apptainer-suid"
    told(apptainer.Apptainer(settings).problem(), expected)


def test_charliecloud_without_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charliecloud, "namespace_problem", lambda _environ: "unshare failed")
    program(tmp_path / "unsquashfs", "exit 1")  # as `unsquashfs -version` does
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    settings = charliecloud.Settings(executable=program(tmp_path / "ch-run", "echo 0.31 >&2"))
    runtime = charliecloud.Charliecloud(settings)
    told(runtime.problem(), r"user namespaces here \(unshare failed\)")
    assert runtime.version() == "charliecloud 0.31"


@pytest.mark.parametrize(
    ("name", "said", "version"),
    [
        ("docker", "20.10.24+dfsg1", "docker 20.10.24+dfsg1"),
        ("podman", "4.3.1", "podman 4.3.1"),
        ("apptainer", "apptainer version 1.4.5", "apptainer 1.4.5"),
        ("apptainer", "singularity-ce version 4.1.0", "singularity-ce 4.1.0"),
        ("enroot", "4.0.1", "enroot 4.0.1"),
    ],
)
def test_versions(tmp_path: Path, name: str, said: str, version: str) -> None:
    module = registry.load("containers", name)
    executable = program(tmp_path / "it", f"echo '{said}'")
    assert module.Implementation(module.Settings(executable=executable)).version() == version


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_remove_kills(tmp_path: Path, name: str) -> None:
    module = registry.load("containers", name)
    executable = program(tmp_path / "it", f"echo \"$@\" >> '{tmp_path}/said'; exit 1")
    settings = module.Settings(executable=executable, global_options=["--first"])
    module.Implementation(settings).remove("launch-train")
    last = (tmp_path / "said").read_text().splitlines()[-1]
    assert last.startswith("--first rm --force")
    assert last.endswith(" launch-train")


def test_a_program_that_does_not_answer_is_killed_with_what_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"sleep 60 & echo $! > '{started}.new'; mv '{started}.new' '{started}'; wait"
    executable = program(tmp_path / "slow", script)
    before = time.monotonic()
    answer = _client.ask([executable], {"PATH": "/usr/bin:/bin"}, timeout_s=0.5)
    assert time.monotonic() - before < 5
    assert (answer.status, answer.error) == (None, "no answer within 0.5 s")
    stat = Path(f"/proc/{started.read_text().strip()}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_gpu_flag_that_docker_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"container.gpu_flag is 'all'; .*one of gpus, cdi"):
        docker.Docker(docker.Settings(gpu_flag="all"))


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def told(problem: str | None, expected: str | None) -> None:
    if expected is None:
        assert problem is None
    else:
        assert problem is not None
        assert re.search(expected, problem), problem
