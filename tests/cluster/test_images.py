"""Images for real: built, pushed, pinned, fetched, converted, and refused when they are altered."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.containers.base import ImageFormat
from launcher.errors import ImageError
from launcher.images import engine as engines
from launcher.images.files import sha256_of
from launcher.images.lock import LockEntry, read_lock, update_lock
from launcher.images.pin import ImagePin
from launcher.images.source import CONTAINERS_DIR
from launcher.images.verify import NamedRuntime, image_argument, prepare_image, resolve_pin
from tests.cluster.image_fixtures import CpuImage, launcher_image
from tests.cluster.rehearsed import Rehearsal, User, run

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = NamedRuntime("docker", ImageFormat.OCI)
PODMAN = NamedRuntime("podman", ImageFormat.OCI)
APPTAINER = NamedRuntime("apptainer", ImageFormat.SIF)
CHARLIECLOUD = NamedRuntime("charliecloud", ImageFormat.SQSH)
# What a stage of a recipe imports, and what the image says of itself.
STAGE = """\
import importlib.metadata, importlib.util, json, os, sys
import jiwer, kaldi_native_fbank, lhotse, lightning, sentencepiece, soundfile, torch
compiled = importlib.util.cache_from_source(torch.__file__)
print(json.dumps({
    "uid": os.getuid(),
    "python": sys.executable,
    "torch": torch.__version__,
    "sum": float(torch.ones(3) @ torch.ones(3)),
    "pyc_flags": list(open(compiled, "rb").read(8)[4:]),
    "packages": [[each.name, each.version] for each in importlib.metadata.distributions()],
}))
"""


@dataclass(frozen=True)
class Small:
    """An image of 2 MB in a repository of its own, so that it can be removed and altered."""

    rehearsal: Rehearsal
    repository: str
    reference: str
    lock_file: Path
    cache_dir: Path

    def image(self, *arguments: str, status: int = 0) -> str:
        """Run ``python -m launcher image …`` with this lock file and cache."""
        options = ("--lock", str(self.lock_file), "--cache", str(self.cache_dir))
        return launcher_image(self.rehearsal, *arguments, *options, status=status)

    def pin(self) -> ImagePin:
        """Return the entry ``small`` of the lock file."""
        return resolve_pin("small", self.lock_file)


@pytest.fixture
def rehearsed(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    """Put the rehearsal cluster into this process's environment."""
    for name, value in {"USER": "root", **rehearsal.environment}.items():
        monkeypatch.setenv(name, value)
    return rehearsal


@pytest.fixture
def small(rehearsed: Rehearsal, tiny_image: str, hostile_path: Path) -> Iterator[Small]:
    """Return an image that is this test's own, pinned as ``small``."""
    name = f"{rehearsed.registry}/launcher-test-{uuid.uuid4().hex[:12]}"
    environment = rehearsed.environment
    run("docker", "pull", "--quiet", tiny_image, environment=environment)
    # Labelled, so that it is not the same image as another test's.
    dockerfile = f"FROM {tiny_image}\nLABEL test={name}\n"
    (hostile_path / "Dockerfile").write_text(dockerfile)
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", f"{name}:1", "."],
        cwd=hostile_path,
        env={**environment, "DOCKER_BUILDKIT": "0"},
        check=True,
        capture_output=True,
    )
    pushed = run("docker", "push", f"{name}:1", environment=environment)
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", pushed)
    assert digest is not None
    lock_file = hostile_path / "images.lock.yaml"
    made = Small(rehearsed, name, f"{name}@{digest[1]}", lock_file, hostile_path / "cache")
    made.image("pin", "small", f"{name}:1")
    yield made
    # What a failed build has left stands on the image.
    prune = ("docker", "image", "prune", "--force", "--filter", f"label=test={name}")
    run(*prune, environment=environment)
    for engine in ("docker", "podman"):
        listed = run(engine, "images", "--quiet", "--no-trunc", name, environment=environment)
        for image_id in set(listed.split()):
            _remove(engine, image_id, environment)


def _remove(engine: str, image_id: str, environment: Mapping[str, str]) -> None:
    """Remove an image where it is still there."""
    command = [engine, "rmi", "--force", image_id]
    subprocess.run(command, env={**os.environ, **environment}, capture_output=True)


def test_the_cpu_image_has_what_is_locked_and_nothing_of_the_project(
    rehearsed: Rehearsal, cpu_image: CpuImage
) -> None:
    pin = resolve_pin("cpu", cpu_image.lock_file)
    image = prepare_image(pin, DOCKER, cpu_image.cache_dir, offline=True)
    assert (image.argument, image.asked, image.verified) == (pin.asked, pin.digest, pin.digest)
    options = ["--rm", "--network=none", "--read-only", "--tmpfs=/tmp"]
    options += ["--user=12345:12345", "--env=HOME=/tmp"]
    command = ["docker", "run", *options, image.argument, "python", "-c", STAGE]
    shown = json.loads(run(*command, environment=rehearsed.environment))
    assert (shown["uid"], shown["python"]) == (12345, "/opt/venv/bin/python")
    assert (shown["torch"], shown["sum"]) == ("2.13.0+cpu", 3.0)
    assert shown["pyc_flags"][0] == 0b01  # by a hash that is not checked (PEP 552)
    lock = (CONTAINERS_DIR / "cpu" / "requirements.lock").read_text()
    locked = {_normal(*each) for each in re.findall(r"^(\S+)==(\S+)", lock, re.M)}
    installed = {_normal(*each) for each in shown["packages"]}
    assert locked <= installed
    assert {each.partition("==")[0] for each in installed - locked} == {"pip"}
    find = ["docker", "run", "--rm", image.argument, "find", "/", "-xdev", "-name", "espnet3*"]
    assert run(*find, environment=rehearsed.environment) == ""


def _normal(name: str, version: str) -> str:
    """Return a package as PEP 503 writes it."""
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_the_cpu_image_as_a_sif_runs_the_same(rehearsed: Rehearsal, cpu_image: CpuImage) -> None:
    pin = resolve_pin("cpu", cpu_image.lock_file)
    image = prepare_image(pin, APPTAINER, cpu_image.cache_dir, offline=True)
    assert image.file_sha256 == pin.sif_sha256
    assert image.verified == pin.digest
    command = ["apptainer", "--silent", "exec", "--cleanenv", image.argument, "python", "-c", STAGE]
    shown = json.loads(run(*command, environment=rehearsed.environment))
    assert (shown["python"], shown["torch"]) == ("/opt/venv/bin/python", "2.13.0+cpu")
    inspected = run("apptainer", "inspect", image.argument, environment=rehearsed.environment)
    assert "launcher.image: cpu" in inspected


@pytest.mark.slow
def test_the_cpu_image_as_squashfs_runs_the_same(
    rehearsed: Rehearsal, cpu_image: CpuImage, tmp_path: Path
) -> None:
    pin = resolve_pin("cpu", cpu_image.lock_file)
    image = prepare_image(pin, CHARLIECLOUD, tmp_path)
    assert image.verified == pin.digest
    assert image.environment["PATH"].startswith("/opt/venv/bin:")
    root = tmp_path / "root"
    root.mkdir()
    run("squashfuse", image.argument, str(root), environment=rehearsed.environment)
    try:
        command = ["ch-run", str(root), "--", "/opt/venv/bin/python", "-c", STAGE]
        shown = json.loads(run(*command, environment=rehearsed.environment))
    finally:
        run("umount", "--lazy", str(root), environment=rehearsed.environment)
    assert shown["torch"] == "2.13.0+cpu"


def test_a_tag_is_pinned_as_the_digest_that_it_is_now(small: Small) -> None:
    entry = read_lock(small.lock_file)["small"]
    assert f"{entry.repository}@{entry.digest}" == small.reference
    inspected = run(
        *("docker", "inspect", "--format", "{{.Id}}", small.reference),
        environment=small.rehearsal.environment,
    )
    assert entry.image_id == inspected.strip()


def test_a_removed_image_is_fetched_by_its_digest(small: Small) -> None:
    environment = small.rehearsal.environment
    run("docker", "rmi", "--force", str(small.pin().image_id), environment=environment)
    assert "not on this machine" in small.image("verify", "small")
    with pytest.raises(ImageError, match="is not on this machine"):
        prepare_image(small.pin(), DOCKER, small.cache_dir, offline=True)
    image = prepare_image(small.pin(), DOCKER, small.cache_dir)
    assert (image.argument, image.verified) == (small.reference, small.pin().digest)
    assert run("docker", "run", "--rm", image.argument, "echo", "here", environment=environment)
    # The tag is not used, and not brought back.
    listed = run("docker", "images", "--quiet", f"{small.repository}:1", environment=environment)
    assert listed == ""


def test_podman_has_the_same_image(small: Small) -> None:
    said = small.image("pull", "small", "--for", "podman")
    assert f"verified {small.pin().digest}" in said
    image = prepare_image(small.pin(), PODMAN, small.cache_dir, offline=True)
    assert image.verified == small.pin().digest
    said = small.image("verify")
    assert re.search(rf"docker +verified {small.pin().digest}", said)
    assert re.search(rf"podman +verified {small.pin().digest}", said)


@pytest.mark.parametrize("runtime", [DOCKER, PODMAN, APPTAINER], ids=lambda each: each.name)
def test_a_digest_that_the_registry_does_not_have(small: Small, runtime: NamedRuntime) -> None:
    pin = ImagePin("small", small.repository, "sha256:" + "0" * 64)
    with pytest.raises(ImageError) as caught:
        prepare_image(pin, runtime, small.cache_dir)
    assert re.search("unknown|not found", str(caught.value))


def test_another_image_under_the_pinned_digests_name_is_refused(small: Small) -> None:
    other = "sha256:" + "1" * 64
    update_lock(
        small.lock_file,
        "small",
        LockEntry(small.repository, small.pin().digest, image_id=other),
    )
    with pytest.raises(ImageError) as caught:
        prepare_image(small.pin(), DOCKER, small.cache_dir)
    assert f"pinned  {other}" in str(caught.value)
    assert re.search(r"found   sha256:[0-9a-f]{64}", str(caught.value))
    assert "is not the one that is pinned" in small.image("verify", status=1)


def test_a_bare_tag_is_refused(small: Small) -> None:
    said = small.image("pull", f"{small.repository}:1", status=1)
    assert "is named by a tag, which may be another image tomorrow" in said
    assert f"python -m launcher image pin NAME {small.repository}:1" in said


def test_one_altered_byte_of_a_sif_is_refused_with_both_digests(small: Small) -> None:
    small.image("pin", "small", small.reference, "--sif", "--sqsh")
    for runtime in (APPTAINER, CHARLIECLOUD):
        path = Path(image_argument(small.pin(), runtime.image_format, small.cache_dir))
        pinned = sha256_of(path)
        assert prepare_image(small.pin(), runtime, small.cache_dir).file_sha256 == pinned
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(ImageError) as caught:
            prepare_image(small.pin(), runtime, small.cache_dir)
        assert f"pinned  {pinned}" in str(caught.value)
        assert f"found   {sha256_of(path)}" in str(caught.value)
    said = small.image("verify", status=1)
    assert said.count("is not the one that is pinned") == 2
    assert re.search(rf"docker +verified {small.pin().digest}", said)
    # What the message says to type mends it.
    for path in small.cache_dir.glob("sha256-*"):
        path.unlink()
    small.image("pull", "small", "--for", "apptainer")
    small.image("pull", "small", "--for", "enroot")
    small.image("verify")


def test_one_image_gives_the_same_sif_however_it_is_made(
    small: Small, non_root_user: User, user_folder: Path
) -> None:
    from_registry = prepare_image(small.pin(), APPTAINER, small.cache_dir)
    by_id = ImagePin("small", image_id=small.pin().image_id)
    from_engine = prepare_image(by_id, APPTAINER, small.cache_dir)
    assert from_engine.path != from_registry.path
    assert from_engine.file_sha256 == from_registry.file_sha256
    # Another user, whom /root with its Python is closed to.
    shutil.copy(small.lock_file, user_folder)
    (user_folder / small.lock_file.name).chmod(0o644)
    paths = (str(REPOSITORY), sysconfig.get_paths()["purelib"])
    code = (
        f"import sys; sys.path[:0] = {paths!r}\n"
        "from launcher.images.commands import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    options = ("--lock", str(user_folder / small.lock_file.name), "--cache", str(user_folder / "c"))
    pulled = ("image", "pull", "small", "--for", "apptainer", *options)
    said = run(
        *("/usr/bin/python3", "-c", code, *pulled[1:]),
        environment={**small.rehearsal.environment, "TMPDIR": str(user_folder)},
        user=non_root_user,
    )
    assert str(from_registry.file_sha256) in said


def test_without_docker_and_podman_apptainer_makes_the_squashfs_file_too(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_docker = prepare_image(small.pin(), CHARLIECLOUD, small.cache_dir / "docker")
    with monkeypatch.context() as without:
        without.setenv("DOCKER_HOST", "unix:///none")
        without.setattr(engines, "ENGINES", ("docker",))
        by_apptainer = prepare_image(small.pin(), CHARLIECLOUD, small.cache_dir / "apptainer")
    assert by_apptainer.verified == by_docker.verified == small.pin().digest
    assert by_apptainer.environment == by_docker.environment
    environment = small.rehearsal.environment
    docker, apptainer = (
        set(run("unsquashfs", "-l", each.argument, environment=environment).split())
        for each in (by_docker, by_apptainer)
    )
    # Each adds a few files of its own.
    of_docker = {f"squashfs-root/{name}" for name in (".dockerenv", "etc/hostname", "etc/mtab")}
    of_apptainer = re.compile(
        r"squashfs-root/(\.singularity\.d.*|\.(exec|run|shell|test)|singularity|environment)"
    )
    assert docker - apptainer <= of_docker
    assert {path for path in apptainer - docker if not of_apptainer.fullmatch(path)} == set()


def test_an_image_that_was_never_pushed_is_used_where_it_was_built(small: Small) -> None:
    environment = small.rehearsal.environment
    (small.lock_file.parent / "Dockerfile").write_text(
        f"FROM {small.reference}\nLABEL x={uuid.uuid4()}\n"
    )
    built = subprocess.run(
        ["docker", "build", "--quiet", "."],
        cwd=small.lock_file.parent,
        env={**environment, "DOCKER_BUILDKIT": "0"},
        check=True,
        capture_output=True,
        text=True,
    )
    image_id = built.stdout.strip()
    said = small.image("pin", "local", image_id)
    assert "It was never pushed" in said
    pin = resolve_pin("local", small.lock_file)
    assert prepare_image(pin, DOCKER, small.cache_dir).argument == image_id
    assert prepare_image(pin, APPTAINER, small.cache_dir).verified == image_id
    run("docker", "rmi", "--force", image_id, environment=environment)
    with pytest.raises(ImageError, match="It was never pushed"):
        prepare_image(pin, DOCKER, small.cache_dir)


@pytest.fixture
def sources(small: Small, tmp_path: Path) -> Path:
    """Return a copy of ``containers`` whose Dockerfile takes no time."""
    folder = tmp_path / "containers"
    shutil.copytree(CONTAINERS_DIR, folder)
    (folder / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nARG TORCH_INDEX\nCOPY requirements.lock /opt/requirements.lock\n"
        "RUN wc -l /opt/requirements.lock\n"
    )
    image = folder / "cpu"
    image.rename(folder / small.repository.rpartition("-")[2])  # an image name of its own
    return folder


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_either_engine_builds_pushes_and_pins(small: Small, sources: Path, engine: str) -> None:
    name = small.repository.rpartition("-")[2]
    options = ("--engine", engine, "--lock", str(sources / "images.lock.yaml"))
    built = launcher_image(small.rehearsal, "build", name, "--base", small.reference, *options)
    assert re.search(r"\d+ /opt/requirements\.lock", built)
    repository = f"{small.repository}/{engine}"
    launcher_image(small.rehearsal, "push", name, "--to", repository, *options)
    launcher_image(small.rehearsal, "pin", name, *options)
    entry = read_lock(sources / "images.lock.yaml")[name]
    assert (entry.repository, entry.base) == (repository, small.reference)
    assert sorted(entry.inputs) == sorted(
        ["Dockerfile", f"{name}/image.yaml", f"{name}/requirements.lock"]
    )
    verified = launcher_image(small.rehearsal, "verify", name, *options)
    assert re.search(rf"{engine} +verified {entry.digest}", verified)
    assert "changed" not in verified
    # The registry has it by that digest: the other engine can fetch it.
    other = {"docker": PODMAN, "podman": DOCKER}[engine]
    pin = resolve_pin(name, sources / "images.lock.yaml")
    assert prepare_image(pin, other, small.cache_dir).verified == entry.digest
    _remove(other.name, str(entry.image_id), small.rehearsal.environment)
    # What it was built from changes: that is said, and it is still the image that is pinned.
    with (sources / name / "requirements.lock").open("a") as file:
        file.write("# another line\n")
    verified = launcher_image(small.rehearsal, "verify", name, *options)
    assert f"changed since it was built: {name}/requirements.lock" in verified
    run(engine, "rmi", "--force", str(entry.image_id), environment=small.rehearsal.environment)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_step_that_fails_is_told_and_leaves_no_container(
    small: Small, sources: Path, engine: str
) -> None:
    environment = small.rehearsal.environment
    name = small.repository.rpartition("-")[2]
    with (sources / "Dockerfile").open("a") as file:
        file.write("RUN echo it is on fire >&2; exit 7\n")
    options = ("--engine", engine, "--lock", str(sources / "images.lock.yaml"))
    arguments = ("build", name, "--base", small.reference, *options)
    said = launcher_image(small.rehearsal, *arguments, status=1)
    assert "it is on fire" in said
    assert f"launcher: espnet3-launcher/{name}:latest could not be built" in said
    assert "7" in said.splitlines()[-1]
    assert "Traceback" not in said
    listed = run(engine, "ps", "--all", "--format", "{{.Command}}", environment=environment)
    assert "on fire" not in listed


def test_a_package_with_another_hash_is_refused(
    rehearsed: Rehearsal, base_image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "containers"
    shutil.copytree(CONTAINERS_DIR, folder)
    lock = folder / "cpu" / "requirements.lock"
    (wanted,) = re.findall(r"^setuptools==\S+ \\$", lock.read_text(), re.M)
    lock.write_text(f"{wanted}\n    --hash=sha256:{'0' * 64}\n")
    options = ("--engine", "docker", "--lock", str(folder / "images.lock.yaml"))
    arguments = ("build", "cpu", "--base", base_image, *options)
    said = launcher_image(rehearsed, *arguments, status=1)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in said


def test_two_processes_convert_once(small: Small) -> None:
    options = ("--lock", str(small.lock_file), "--cache", str(small.cache_dir))
    command = [sys.executable, "-m", "launcher", "image", "pull", "small", "--for", "apptainer"]
    processes = [
        subprocess.Popen([*command, *options], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("unpacks" in each for each in said) == [False, True]


_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_document_s_commands_work(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Every command of docs/containers.md, with an image that takes no time."""
    checkout = tmp_path / "checkout"
    for folder in ("launcher", "containers"):
        shutil.copytree(REPOSITORY / folder, checkout / folder)
    name = small.repository.rpartition("-")[2]
    (checkout / "containers" / "cpu").rename(checkout / "containers" / name)
    image_yaml = checkout / "containers" / name / "image.yaml"
    image_yaml.write_text(f"base: {small.reference}\n")
    (checkout / "containers" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nARG TORCH_INDEX\n")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    document = (REPOSITORY / "docs" / "containers.md").read_text()
    printed = []
    for block in _BLOCK.findall(document):
        for line in block.splitlines():
            words = line.replace("espnet3/cpu", small.repository.partition("/")[2]).split()
            words = [name if word == "cpu" else word for word in words]
            assert words[:3] == ["python", "-m", "launcher"], line
            engines = [] if "--for" in words else ["--engine", engine]
            done = subprocess.run(
                [sys.executable, *words[1:], *engines],
                cwd=checkout,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout)
    assert len(printed) == 8
    entry = read_lock(checkout / "containers" / "images.lock.yaml")[name]
    assert (entry.base, entry.repository) == (small.reference, small.repository)
    assert entry.sif_sha256 is not None
    assert re.search(rf"{engine} +verified {entry.digest}", printed[4])
    _remove(engine, str(entry.image_id), small.rehearsal.environment)
