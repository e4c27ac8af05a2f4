"""Podman's command line: what it is asked, and what its answers become; with a stand-in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from launcher.errors import ImageError
from launcher.images.engine import BuildRequest
from launcher.images.podman_engine import PodmanEngine

HEX = "1" * 64
DIGEST = "sha256:" + "d" * 64
SHOWN = {
    "Id": HEX,
    "RepoDigests": [f"localhost/x@{DIGEST}", f"localhost:5000/x@{DIGEST}"],
    "Config": {"Env": ["A=1=2", "B="]},
    "Labels": {"launcher.image": "cpu"},
    "Created": "2026-11-23T06:40:15.5Z",
    "Size": 12,
}
STAND_IN = f"""\
#!{sys.executable}
import json, os, sys
arguments = sys.argv[1:]
with open(os.environ["PODMAN_CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
def after(option):
    return arguments[arguments.index(option) + 1]
if "exists" in arguments:
    sys.exit(1 if arguments[-1] == "none" else 0)
if "inspect" in arguments:
    print(json.dumps([{SHOWN!r}]))
elif "build" in arguments:
    print("STEP 1/2: FROM x")
    print(sorted(os.listdir(arguments[-1])))
    open(after("--iidfile"), "w").write("{HEX}")
elif "push" in arguments:
    open(after("--digestfile"), "w").write("{DIGEST}")
elif "pull" in arguments and "@" not in arguments[-1]:
    print("Error: manifest unknown", file=sys.stderr)
    sys.exit(125)
elif "create" in arguments:
    print("container1")
elif "export" in arguments:
    sys.stdout.write("a tar archive")
elif "--version" in arguments:
    print("podman version 4.3.1")
"""


@pytest.fixture
def podman(hostile_path: Path, monkeypatch: pytest.MonkeyPatch) -> PodmanEngine:
    """Return an engine that talks to a program which notes what it is asked."""
    program = hostile_path / "podman"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PODMAN_CALLS", str(hostile_path / "calls"))
    return PodmanEngine(str(program), ["--cgroup-manager=cgroupfs"])


def calls() -> list[list[str]]:
    lines = Path(os.environ["PODMAN_CALLS"]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_an_image_is_described_as_docker_would(podman: PodmanEngine) -> None:
    image = podman.inspect("x")
    assert image is not None
    assert image.image_id == f"sha256:{HEX}"
    assert image.repo_digests == (f"localhost:5000/x@{DIGEST}",)  # the other one is no registry's
    assert image.environment == {"A": "1=2", "B": ""}
    assert podman.inspect("none") is None
    assert calls()[0] == ["--cgroup-manager=cgroupfs", "image", "exists", "x"]
    assert podman.version() == "podman 4.3.1"


def test_a_build_sees_two_files(podman: PodmanEngine, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    said: list[str] = []
    files = {"Dockerfile": tmp_path / "a", "requirements.lock": tmp_path / "b"}
    request = BuildRequest(files, {"BASE": "x y"}, {"k": "v"}, "name:latest", pull=True)
    assert podman.build(request, said.append) == f"sha256:{HEX}"
    assert said == ["STEP 1/2: FROM x", "['Dockerfile', 'requirements.lock']"]
    (build,) = calls()
    assert build[1:5] == ["build", "--layers", "--network", "host"]
    assert "--pull-always" in build
    assert build[build.index("--build-arg") + 1] == "BASE=x y"
    assert build[build.index("--label") + 1] == "k=v"


def test_a_registry_on_loopback_needs_no_tls_and_others_do(podman: PodmanEngine) -> None:
    assert podman.push("localhost:5000/x:1", print) == DIGEST
    assert podman.push("registry.example/x:1", print) == DIGEST
    pushed, fetched, *elsewhere = calls()
    assert "--tls-verify=false" in pushed
    assert "--tls-verify=false" in fetched
    # It is fetched back by its digest in the registry, which is another one than in the store.
    assert fetched[-1] == f"localhost:5000/x@{DIGEST}"
    assert "--tls-verify=false" not in [*elsewhere[0], *elsewhere[1]]


def test_what_podman_says_is_in_the_message(podman: PodmanEngine) -> None:
    with pytest.raises(ImageError, match=r"could not be pulled: podman says:\n  Error: manifest"):
        podman.pull("registry.example/x:1", print)


def test_an_exported_container_is_removed(podman: PodmanEngine, tmp_path: Path) -> None:
    with (tmp_path / "tar").open("wb") as output:
        podman.export("x", output)
    assert (tmp_path / "tar").read_text() == "a tar archive"
    assert calls()[-1] == ["--cgroup-manager=cgroupfs", "rm", "--force", "container1"]


def test_no_podman_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no program /none/podman"):
        PodmanEngine("/none/podman")
