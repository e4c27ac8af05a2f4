"""The programs that stand before Podman and Charliecloud, and what runtimes have in common."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher.containers import _charliecloud_root, _watched_client, apptainer, enroot
from launcher.containers._charliecloud_root import Bind, mount_point, unpacked
from launcher.containers._oci import mount_option, sorted_mounts
from launcher.containers.base import ContainerRun, Mount
from launcher.errors import ConfigError

RUN = ContainerRun(command=("true",), working_dir=Path("/srv"))

# Two processes as rootless Podman is: the first one ends with 0 at SIGTERM, the second one follows
# the container, which takes its time and ends with 7. A third one, which holds the user namespace,
# stays.
ROOTLESS = """\
import os, signal, sys, time
ready, = sys.argv[1:]
if os.fork():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    time.sleep(60)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
if os.fork() == 0:
    os.setsid()
    open(ready + ".pid", "w").write(str(os.getpid()))
    open(ready, "w").close()
    time.sleep(60)
while not stopping:
    time.sleep(0.01)
time.sleep(0.3)
sys.exit(7)
"""
# What the guard hears: the bytes on standard input, until SIGTERM or the end.
LISTENING = """\
import os, sys
print("ready", flush=True)
heard = b""
while (byte := os.read(0, 1)):
    heard += byte
    if byte == b"\\x0f":
        break
print(list(heard), flush=True)
sys.exit(int(sys.argv[1]))
"""


def watched(mode: str, *command: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-IS", _watched_client.__file__, mode, *command]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def closed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with process:  # closes the pipes and waits
        pass


def test_the_second_process_of_rootless_podman_counts(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = watched("follow", sys.executable, "-c", ROOTLESS, str(ready))
    try:
        until(ready.exists)
        listing = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        group = int(listing.read_text())
        process.terminate()  # as Slurm does, which signals every process of the job
        os.killpg(group, signal.SIGTERM)
        assert process.wait(10) == 7
    finally:
        closed(process)
        subprocess.run(["kill", Path(f"{ready}.pid").read_text()], check=True)


@pytest.mark.parametrize("mode", ["follow", "end"])
@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill $$", 143)])
def test_the_clients_status_is_returned(mode: str, script: str, status: int) -> None:
    process = watched(mode, "sh", "-c", script)
    try:
        assert process.wait(10) == status
    finally:
        closed(process)


@pytest.mark.parametrize("mode", ["follow", "end"])
@pytest.mark.parametrize("status", [0, 7])
def test_signals_arrive_as_bytes_and_success_is_then_not_believed(mode: str, status: int) -> None:
    process = watched(mode, sys.executable, "-c", LISTENING, str(status))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.1)
        process.terminate()
        assert process.wait(10) == (status or 128 + signal.SIGTERM)
        assert process.stdout.read() == b"[12, 15]\n"
    finally:
        closed(process)


def test_what_the_job_says_is_passed_on_and_success_believed() -> None:
    process = watched("end", sys.executable, "-c", LISTENING, "0")
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bytes([signal.SIGUSR2, signal.SIGCHLD, signal.SIGTERM]))
        process.stdin.flush()
        assert process.wait(10) == 0
        assert process.stdout.read() == b"ready\n[12, 17, 15]\n"
    finally:
        closed(process)


@pytest.mark.parametrize("how", ["the job ends", "the watcher is killed"])
def test_the_end_of_the_job_reaches_the_client(how: str) -> None:
    process = watched("end", sys.executable, "-c", LISTENING, "0")
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if how == "the job ends":
            process.stdin.close()
        else:
            process.kill()
        assert process.stdout.read() == b"[]\n"
    finally:
        closed(process)


# Leaves a process in a session of its own, as Apptainer leaves the one that serves the image.
LEAVING = """\
import os, sys, time
if os.fork() == 0:
    os.setsid()
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(60)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("mode", ["follow", "end"])
def test_a_client_that_cannot_start_is_one_line(mode: str, tmp_path: Path) -> None:
    words = [sys.executable, "-IS", _watched_client.__file__, mode]
    for client, status in (("/no/such", 127), (str(tmp_path), 126)):
        done = subprocess.run([*words, client], capture_output=True, text=True, timeout=10)
        assert done.returncode == status
        assert done.stderr.startswith(f"cannot start {client}: ")


def test_the_client_starts_with_no_signal_ignored() -> None:
    process = watched("end", "grep", "^SigIgn:", "/proc/self/status")
    try:
        assert process.stdout is not None
        ignored = int(process.stdout.read().split()[1], 16)
        # Bit 31 is signal 32, the C library's own, which it lets nobody change.
        assert ignored & 0x7FFF_FFFF == 0
    finally:
        closed(process)


def test_what_the_client_leaves_is_ended(tmp_path: Path) -> None:
    left = tmp_path / "left"
    process = watched("end", sys.executable, "-c", LEAVING, str(left))
    try:
        assert process.wait(10) == 0
        assert not Path("/proc", left.read_text()).exists()
    finally:
        closed(process)


def test_mounts_stand_before_those_below_them() -> None:
    paths = ["/srv/a/b", "/tmp/x", "/srv", "/tmp"]
    mounts = [Mount(Path(path), Path(path)) for path in paths]
    ordered = [str(mount.target) for mount in sorted_mounts(mounts)]
    assert ordered == ["/srv", "/tmp", "/tmp/x", "/srv/a/b"]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("a b", "source=/a b"),
        ("a,b", '"source=/a,b"'),
        ('a"b', '"source=/a""b"'),
        ("a\nb", '"source=/a\nb"'),
        ("a:b'$\\", "source=/a:b'$\\"),
    ],
)
def test_a_mount_is_a_line_of_csv(name: str, field: str) -> None:
    option = mount_option(Mount(Path("/", name), Path("/target"), read_only=True))
    assert option == f"type=bind,{field},target=/target,readonly"


def test_a_mount_point_lies_in_the_mount_above(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to("/etc")
    binds = [Bind(Path("/host"), Path("/srv"), False), Bind(Path("/snap"), Path("/srv/a"), True)]
    assert mount_point(Path("/srv/a/f"), binds) == Path("/snap/f")
    assert mount_point(Path("/srv/b/f"), binds) == Path("/host/b/f")
    assert mount_point(Path("/srv"), []) == Path("root/srv")
    with pytest.raises(OSError, match="nothing can be mounted at /link/x: /link is a link"):
        mount_point(Path("/link/x"), [])


def test_an_image_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, calls = tmp_path / "it.sqsh", []
    image.write_text("x")

    def unsquashfs(command: Sequence[str], **_options: object):
        calls.append(command)
        (Path(command[-2]) / "bin").mkdir(parents=True)
        (Path(command[-2]) / "bin" / "python").write_text("trusted")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(_charliecloud_root.subprocess, "run", unsquashfs)
    monkeypatch.setattr(_charliecloud_root.signal, "signal", lambda *_: None)
    root = unpacked(image, tmp_path)
    assert root == unpacked(image, tmp_path)
    assert unpacked(root, tmp_path) == root
    assert len(calls) == 1
    image.write_text("another")
    assert unpacked(image, tmp_path) != root
    assert len(calls) == 2
    assert not list(tmp_path.glob(".it*"))


def test_an_unpacked_image_that_somebody_was_at_is_unpacked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "it.sqsh"
    image.write_text("x")

    def unsquashfs(command: Sequence[str], **_options: object):
        (Path(command[-2]) / "bin").mkdir(parents=True)
        (Path(command[-2]) / "bin" / "python").write_text("trusted")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(_charliecloud_root.subprocess, "run", unsquashfs)
    monkeypatch.setattr(_charliecloud_root.signal, "signal", lambda *_: None)
    python = unpacked(image, tmp_path) / "bin" / "python"
    before = python.stat()
    python.write_text("altered")  # the same size, and its time set back
    os.utime(python, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = unpacked(image, tmp_path) / "bin" / "python"
    assert again.read_text() == "trusted"
    (aside,) = tmp_path.glob("*.changed-*")
    assert (aside / "root" / "bin" / "python").read_text() == "altered"
    assert str(aside) in capsys.readouterr().err
    (again.parent / "more").touch()
    assert not (unpacked(image, tmp_path) / "bin" / "more").exists()
    assert len(list(tmp_path.glob("*.changed-*"))) == 2


def test_images_are_not_unpacked_where_others_could_replace_them(tmp_path: Path) -> None:
    image, folder = tmp_path / "it.sqsh", tmp_path / "shared"
    image.write_text("x")
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match=r"others may write to it \(chmod go-w"):
        unpacked(image, folder)
    folder.chmod(0o1777)  # sticky, as /tmp: others cannot replace, but could be first
    found = image.stat()
    squatted = folder / f"it.sqsh.{found.st_size:x}-{found.st_mtime_ns:x}.unpacked"
    squatted.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="was put there by"):
        unpacked(image, folder)


def test_an_image_that_cannot_be_unpacked_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-IS", _charliecloud_root.__file__]
    done = subprocess.run(
        [*command, str(tmp_path / "no.sqsh"), str(tmp_path), "--", "true"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 126
    assert done.stderr.startswith("charliecloud: cannot start ")
    assert len(done.stderr.splitlines()) == 1


def test_a_line_break_is_too_much_for_enroot() -> None:
    run = dataclasses.replace(RUN, environment={"NOTE": "a\nb"})
    with pytest.raises(ConfigError, match="variable NOTE: it holds a line break"):
        enroot.Enroot(enroot.Settings()).command(run)


@pytest.mark.parametrize(
    ("euid", "bounding", "userns"), [(0, 0, True), (0, 1 << 24, False), (1, 0, False)]
)
def test_root_without_all_capabilities_works_in_a_user_namespace(
    monkeypatch: pytest.MonkeyPatch, euid: int, bounding: int, userns: bool
) -> None:
    monkeypatch.setattr(apptainer.os, "geteuid", lambda: euid)
    monkeypatch.setattr(apptainer.Path, "read_text", lambda _: f"CapBnd:\t{bounding:x}\n")
    command = apptainer.Apptainer(apptainer.Settings()).command(RUN)
    assert ("--userns" in command) is userns


def until(condition, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
