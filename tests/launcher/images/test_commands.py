"""``image …`` on the command line; what needs an engine is in tests/cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.images import commands
from launcher.images.engine import LocalImage
from launcher.images.lock import LockEntry, update_lock
from launcher.images.usage import HELP, parser
from launcher.typed import as_typed
from tests.launcher.images.conftest import DIGEST, IMAGE_ID, REPOSITORY, FakeEngine

COMMANDS = tuple(commands._COMMANDS)


def test_help_names_each_command_and_option_and_no_other() -> None:
    options = {name for each in COMMANDS for name in parser(each)._option_string_actions}
    assert set(re.findall(r"(?<!\S)\[?(--[a-z]+)", HELP)) - {"--help"} == options
    assert tuple(re.findall(r"launcher image ([a-z]+)", HELP)) == COMMANDS
    assert max(map(len, HELP.splitlines())) <= 80


def test_each_command_has_an_example_that_it_takes() -> None:
    examples = HELP.partition("\nexamples:\n")[2].splitlines()
    assert tuple(example.split()[1] for example in examples) == COMMANDS
    for example in examples:
        _, command, *words = example.split()
        parser(command).parse_args(words)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_usage_of_each_command_is_its_own(command: str) -> None:
    assert parser(command).format_usage().startswith(f"usage: python -m launcher image {command}")


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["build", "cpu", "-h"]])
def test_help_is_at_hand(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", *arguments]) == 0
    assert capsys.readouterr().out == HELP


def test_help_imports_nothing_heavy() -> None:
    heavy = ("docker", "requests", "yaml", "rich", "hydra", "submitit", "argparse")
    code = (
        "import sys\n"
        "from launcher.cli import main\n"
        "main(['image', '--help'])\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["biuld"], 2, "no command 'image biuld'. Did you mean 'build'?"),
        (["build", "cpuu"], 1, "Did you mean 'cpu'? Images: cpu, gpu."),
        (["push", "cpu", "--to", "Bad"], 1, "'Bad' is not the name of an image"),
        (["push", "cpu", "--to", f"a@sha256:{'0' * 64}"], 2, "to a repository, not to a digest"),
        (["pull", "cpu"], 1, "is not pinned in"),
        (["verify", "cpu"], 1, "Pinned there: none."),
    ],
)
def test_a_mistake_is_one_message(
    lock_file: Path,
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(
            ["image", *arguments, "--lock", str(lock_file)]
            if len(arguments) > 1
            else ["image", *arguments]
        )
        == status
    )
    said = capsys.readouterr().err
    assert said.startswith("launcher: ")
    assert message in said


def test_the_list_says_what_is_pinned_and_what_is_not(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///none")
    inputs = {"Dockerfile": "sha256:" + "0" * 64}
    entry = LockEntry("a.example/cpu", "sha256:" + "d" * 64, inputs=inputs, built="2026-11-23")
    update_lock(lock_file, "cpu", entry)
    options = ["--lock", str(lock_file), "--cache", str(lock_file.parent), "--engine", "docker"]
    assert main(["image", "list", *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["name", "image", "built", "here", "inputs"],
        ["cpu", "a.example/cpu@sha256:dddddddddddd…", "2026-11-23", "–", "changed:", "Dockerfile"],
        ["gpu", "not", "pinned", "–", "–", "–"],
    ]


def test_verify_is_content_with_what_is_not_here_and_not_with_what_differs(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///none")
    digest = "d" * 64
    inputs = {"Dockerfile": "sha256:" + "0" * 64}
    entry = LockEntry("a.example/cpu", f"sha256:{digest}", sif_sha256=f"sha256:{'5' * 64}")
    update_lock(lock_file, "cpu", entry)
    update_lock(lock_file, "old", LockEntry(image_id=f"sha256:{'1' * 64}", inputs=inputs))
    cache = lock_file.parent / "cache"
    options = ["--lock", str(lock_file), "--cache", str(cache), "--engine", "docker"]
    assert main(["image", "verify", *options]) == 0
    said = capsys.readouterr().out
    assert said.count("not on this machine") == 2
    assert "changed since it was built: Dockerfile" in said
    cache.mkdir()
    (cache / f"sha256-{digest}.sif").write_text("other")
    assert main(["image", "verify", *options]) == 1
    assert f"pinned  sha256:{'5' * 64}" in capsys.readouterr().out
    assert main(["image", "verify", "old", *options]) == 0


def test_a_persons_settings_say_where_pins_and_converted_files_are(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///none")
    digest = "d" * 64
    entry = LockEntry("a.example/cpu", f"sha256:{digest}", sif_sha256=f"sha256:{'5' * 64}")
    update_lock(lock_file, "cpu", entry)
    cache = lock_file.parent / "cache"
    cache.mkdir()
    (cache / f"sha256-{digest}.sif").write_text("other")
    own = lock_file.parent / "launch.yaml"
    own.write_text(json.dumps({"images_lock": str(lock_file), "image_cache": str(cache)}))
    monkeypatch.setenv("LAUNCHER_CONFIG", str(own))
    assert main(["image", "verify", "cpu", "--engine", "docker"]) == 1
    assert f"pinned  sha256:{'5' * 64}" in capsys.readouterr().out
    elsewhere = ["--cache", str(lock_file.parent), "--engine", "docker"]
    assert main(["image", "verify", "cpu", *elsewhere]) == 0  # a flag has the last word


@pytest.mark.parametrize(
    ("digests", "which"),
    [
        ((), ""),
        ((f"{REPOSITORY}@{DIGEST}",), ""),
        # By its name alone it would be pinned where it was pushed to before.
        ((f"elsewhere/cpu@{DIGEST}",), f" {REPOSITORY}@{DIGEST}"),
    ],
)
def test_how_to_pin_what_was_pushed(
    digests: tuple[str, ...],
    which: str,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = LocalImage(IMAGE_ID, digests)
    monkeypatch.setattr("launcher.images.engine.load_engine", lambda name: engine)
    monkeypatch.setattr("launcher.images.build.latest_build", lambda engine, name: image)
    assert main(["image", "push", "cpu", "--to", REPOSITORY]) == 0
    assert capsys.readouterr().out.endswith(
        f"To pin it:\n  {as_typed('python -m launcher')} image pin cpu{which}\n"
    )
