"""Which program makes which file, with stand-ins; the real ones are in tests/cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.errors import ImageError
from launcher.images import convert, programs
from launcher.images.convert import convert_to_sif, convert_to_sqsh
from launcher.images.pin import ImagePin
from launcher.images.sif import DATA_OFFSET
from launcher.images.unpack import Tools

DIGEST = "sha256:" + "d" * 64
PIN = ImagePin("cpu", "localhost:5000/team/cpu", DIGEST)
STAND_IN = f"""\
#!{sys.executable}
import json, os, sys
from pathlib import Path
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    shown = {{key: os.environ.get(key) for key in ("ENROOT_ALLOW_HTTP", "SOURCE_DATE_EPOCH")}}
    calls.write(json.dumps([name, arguments, shown]) + "\\n")
if os.environ.get("FAIL") == name:
    print("mount: No space left on device")
    sys.exit(3)
if arguments[0] in ("--version", "-version", "version"):
    print({{"apptainer": "apptainer version 1.4.5", "enroot": "4.0.1"}}.get(
        name, "mksquashfs version 4.5.1 (2022/03/17)"))
elif name == "apptainer":
    metadata = Path(arguments[-2], ".singularity.d", "env")
    metadata.mkdir(parents=True)
    (metadata / "10-docker2singularity.sh").write_text('export A="b"\\n')
elif name == "mksquashfs":
    with open(arguments[1], "wb") as file:
        file.seek(int(arguments[arguments.index("-offset") + 1]))
        file.write(b"hsqs")
elif name == "enroot":
    Path(arguments[2]).write_text("hsqs")
"""


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder of programs there is, with mksquashfs in it; no engine answers."""
    folder = tmp_path / "my bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DOCKER_HOST", "unix:///none")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.delenv("APPTAINER_TMPDIR", raising=False)
    monkeypatch.setattr(programs.tempfile, "tempdir", None)
    monkeypatch.setattr(programs, "_SBIN", "")
    install(folder, "mksquashfs")
    return folder


def install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)


def calls() -> list[tuple[str, list[str], dict[str, str | None]]]:
    lines = Path(os.environ["CALLS"]).read_text().splitlines()
    made = [json.loads(line) for line in lines]
    return [(name, words, env) for name, words, env in made if len(words) > 1]


def test_a_sif_is_unpacked_by_digest_and_packed_behind_its_head(
    bin_dir: Path, tmp_path: Path
) -> None:
    install(bin_dir, "apptainer")
    target = tmp_path / "a.sif"
    said: list[str] = []
    made = convert_to_sif(PIN, target, Tools(say=said.append))
    assert (made.source, made.reference) == (DIGEST, PIN.asked)
    assert made.tool == "apptainer 1.4.5, mksquashfs 4.5.1"
    assert made.environment == {"A": "b"}
    unpack, pack = calls()
    assert unpack[1][:2] == ["--silent", "build"]
    assert unpack[1][-1] == f"docker://localhost:5000/team/cpu@{DIGEST}"
    assert "--no-https" in unpack[1]
    # The time of the caller's is not passed on: mksquashfs would refuse it beside its options.
    assert pack[2]["SOURCE_DATE_EPOCH"] is None
    assert pack[1][pack[1].index("-offset") + 1] == str(DATA_OFFSET)
    content = target.read_bytes()
    assert content[32:41] == b"SIF_MAGIC"
    assert content[DATA_OFFSET:] == b"hsqs"
    assert list(tmp_path.glob("launcher-image-*")) == []


@pytest.mark.parametrize("program", ["apptainer", "mksquashfs"])
def test_a_program_that_fails_is_told_in_its_own_words(
    bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    install(bin_dir, "apptainer")
    monkeypatch.setenv("FAIL", program)
    with pytest.raises(ImageError) as caught:
        convert_to_sif(PIN, tmp_path / "a.sif", Tools())
    assert str(caught.value) == (
        f"{program} failed:\n  mount: No space left on device\n"
        "TMPDIR names the folder to unpack in."
    )
    assert list(tmp_path.glob("launcher-image-*")) == []


def test_what_is_missing_is_named(bin_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no program apptainer here"):
        convert_to_sif(PIN, tmp_path / "a.sif", Tools())
    with pytest.raises(ImageError, match="there is no program /none/apptainer here"):
        convert_to_sif(PIN, tmp_path / "a.sif", Tools(apptainer="/none/apptainer"))
    with pytest.raises(ImageError) as caught:
        convert_to_sqsh(PIN, tmp_path / "a.sqsh", Tools())
    assert "there is neither Enroot nor Apptainer, and no Docker daemon answers" in str(
        caught.value
    )
    install(bin_dir, "apptainer")
    (bin_dir / "mksquashfs").unlink()
    with pytest.raises(ImageError, match=r"Install squashfs-tools 4\.5"):
        convert_to_sif(PIN, tmp_path / "a.sif", Tools())
    with pytest.raises(ImageError, match="is in no registry, and no engine here has it"):
        convert_to_sif(ImagePin("x", image_id=DIGEST), tmp_path / "a.sif", Tools())


@pytest.mark.parametrize(
    ("repository", "asked", "http"),
    [
        ("localhost:5000/team/cpu", f"docker://localhost:5000#team/cpu@{DIGEST}", "yes"),
        ("registry.example/team/cpu", f"docker://registry.example#team/cpu@{DIGEST}", None),
        ("team/cpu", f"docker://team/cpu@{DIGEST}", None),
    ],
)
def test_enroot_imports_by_digest(
    bin_dir: Path, tmp_path: Path, repository: str, asked: str, http: str | None
) -> None:
    install(bin_dir, "enroot", "apptainer")
    made = convert_to_sqsh(ImagePin("cpu", repository, DIGEST), tmp_path / "a.sqsh", Tools())
    assert (made.source, made.tool, made.environment) == (DIGEST, "enroot 4.0.1", {})
    ((name, words, environment),) = calls()
    assert (name, words) == ("enroot", ["import", "--output", str(tmp_path / "a.sqsh"), asked])
    assert environment["ENROOT_ALLOW_HTTP"] == http


def test_without_enroot_apptainer_unpacks(bin_dir: Path, tmp_path: Path) -> None:
    install(bin_dir, "apptainer")
    made = convert_to_sqsh(PIN, tmp_path / "a.sqsh", Tools())
    assert made.environment == {"A": "b"}
    assert (tmp_path / "a.sqsh").read_bytes() == b"hsqs"


def test_the_time_of_an_image_is_read() -> None:
    assert convert._seconds("2026-11-23T06:40:15.536876652Z") == 1795416015
    assert convert._seconds("2026-11-23T06:40:15Z") == 1795416015
    assert convert._seconds("") == 0


def test_a_conversion_that_is_ended_leaves_nothing(bin_dir: Path, tmp_path: Path) -> None:
    slow = bin_dir / "apptainer"
    slow.write_text(
        f"#!{sys.executable}\nimport sys, time\ntime.sleep('--version' not in sys.argv and 60)\n"
    )
    slow.chmod(0o755)
    lock_file = tmp_path / "images.lock.yaml"
    lock_file.write_text(f"cpu: {{repository: team/cpu, digest: '{DIGEST}'}}\n")
    cache = tmp_path / "cache"
    arguments = ["image", "pull", "cpu", "--for", "apptainer", "--lock", str(lock_file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", *arguments, "--cache", str(cache)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("launcher-image-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    process.terminate()
    assert process.wait(10) == 143
    assert list(tmp_path.glob("launcher-image-*")) == []
    assert [each.suffix for each in cache.iterdir()] == [".lock"]
