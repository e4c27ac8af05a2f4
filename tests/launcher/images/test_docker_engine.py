"""Docker's events as lines and messages, and which daemon is meant; without a daemon."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from launcher.errors import ImageError
from launcher.images import docker_engine
from launcher.images.docker_engine import DockerEngine
from launcher.images.engine import BuildRequest, load_engine

DIGEST = "sha256:" + "d" * 64
IMAGE_ID = "sha256:" + "1" * 64


class FakeClient:
    """A client whose daemon answers what a test put there."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.timeout = 0
        self.events: list[dict[str, Any]] = []
        self.called: dict[str, Any] = {}

    def close(self) -> None:
        """Be closed."""

    def pull(self, repository: str, **options: Any) -> Iterator[dict[str, Any]]:
        self.called = {"repository": repository, **options}
        return iter(self.events)

    push = pull

    def build(self, **options: Any) -> Iterator[dict[str, Any]]:
        self.called = options
        return iter(self.events)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> list[FakeClient]:
    """Collect the clients that are made."""
    made: list[FakeClient] = []

    def make(**arguments: Any) -> FakeClient:
        made.append(FakeClient(**arguments))
        return made[-1]

    monkeypatch.setattr(docker, "APIClient", make)
    monkeypatch.setattr(docker_engine, "_reach", lambda host: None)
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_a_build_needs_no_buildkit_and_sends_its_two_files(
    client: list[FakeClient], tmp_path: Path
) -> None:
    engine = DockerEngine()
    for name in ("Dockerfile", "requirements.lock"):
        (tmp_path / name).write_text(name)
    client[0].events = [
        {"stream": "Step 1/2 : FROM x\n"},
        {"stream": "\n"},
        {"aux": {"ID": IMAGE_ID}},
        {"stream": "Successfully built 1\n"},
    ]
    said: list[str] = []
    files = {name: tmp_path / name for name in ("requirements.lock", "Dockerfile")}
    request = BuildRequest(files, {"BASE": "x"}, {"label": "value"}, "name:latest")
    assert engine.build(request, said.append) == IMAGE_ID
    assert said == ["Step 1/2 : FROM x", "Successfully built 1"]
    context = client[0].called.pop("fileobj")
    with tarfile.open(fileobj=io.BytesIO(context.read())) as archive:
        members = {each.name: (each.mode, each.uid, each.mtime) for each in archive}
    assert members == dict.fromkeys(("Dockerfile", "requirements.lock"), (0o644, 0, 0))
    called = client[0].called
    assert (called["network_mode"], called["custom_context"]) == ("host", True)
    assert (called["buildargs"], called["labels"]) == ({"BASE": "x"}, {"label": "value"})


def test_a_failed_step_is_the_message(client: list[FakeClient]) -> None:
    engine = DockerEngine()
    client[0].events = [{"error": "The command 'pip' returned 1\n"}]
    with pytest.raises(ImageError, match=r"^x:1 could not be built: The command 'pip' returned 1$"):
        engine.build(BuildRequest({}, {}, {}, "x:1"), print)


def test_a_push_tells_its_digest(client: list[FakeClient]) -> None:
    engine = DockerEngine()
    client[0].events = [
        {"status": "Preparing", "id": "a"},
        {"status": "Pushing", "id": "a", "progressDetail": {"current": 1}},
        {"status": "Pushed", "id": "a", "progressDetail": {}},
        {"aux": {"Tag": "1", "Digest": DIGEST, "Size": 1}},
    ]
    said: list[str] = []
    assert engine.push("localhost:5000/x:1", said.append) == DIGEST
    assert said == ["a: Pushed"]
    assert (client[0].called["repository"], client[0].called["tag"]) == ("localhost:5000/x", "1")


def test_a_pull_is_by_digest(client: list[FakeClient]) -> None:
    engine = DockerEngine()
    engine.pull(f"localhost:5000/x@{DIGEST}", print)
    assert (client[0].called["repository"], client[0].called["tag"]) == ("localhost:5000/x", DIGEST)
    client[0].events = [{"error": "manifest unknown"}]
    with pytest.raises(ImageError, match="could not be pulled: manifest unknown"):
        engine.pull(f"localhost:5000/x@{DIGEST}", print)


def context_file(folder: Path, host: str) -> None:
    """Write a context of Docker's command line, and make it the current one."""
    name = docker.context.config.get_context_id("there")
    meta = folder / "contexts" / "meta" / name
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(
        json.dumps({"Name": "there", "Metadata": {}, "Endpoints": endpoints})
    )
    (folder / "config.json").write_text(json.dumps({"currentContext": "there"}))


# The SDK leaves the context's file to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("options", "environment", "host"),
    [
        ([], {}, "unix:///there"),
        ([], {"DOCKER_HOST": "unix:///environment"}, "unix:///environment"),
        (["--host=unix:///option"], {"DOCKER_HOST": "unix:///environment"}, "unix:///option"),
        (["-H", "unix:///option"], {}, "unix:///option"),
        (["--context", "there"], {"DOCKER_HOST": "unix:///environment"}, "unix:///there"),
    ],
)
def test_the_daemon_is_the_one_that_the_command_line_would_use(
    client: list[FakeClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    environment: dict[str, str],
    host: str,
) -> None:
    context_file(tmp_path, "unix:///there")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    DockerEngine(options)
    gc.collect()
    assert client[0].arguments["base_url"].replace("http+unix", "unix") == host


def test_a_context_that_there_is_none_of_is_not_passed_over(
    client: list[FakeClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(ImageError, match="Docker has no context 'nowhere'"):
        DockerEngine(["--context=nowhere"])
    assert client == []


def test_no_daemon_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ImageError) as caught:
        load_engine("docker")
    assert str(caught.value) == (
        f"no Docker daemon answers at unix://{tmp_path}/none.sock: No such file or directory. "
        "Start Docker (or name its daemon: DOCKER_HOST), or install Podman."
    )
    with pytest.raises(ImageError, match="there is no engine 'dokcer'"):
        load_engine("dokcer")


def test_a_broken_pipe_is_left_to_the_program_behind_it() -> None:
    with pytest.raises(BrokenPipeError), docker_engine._errors("x"):
        raise BrokenPipeError
