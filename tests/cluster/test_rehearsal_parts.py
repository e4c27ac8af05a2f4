"""The rehearsal cluster's own code, as far as it needs neither root nor daemons."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "rehearsal"
SERVE = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(60)"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scripts find one another, as they do when one of them is run."""
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def state(tmp_path: Path) -> types.SimpleNamespace:
    found = importlib.import_module("state").State(tmp_path / "rehearsal")
    found.create()
    return found


@pytest.fixture
def daemons() -> types.ModuleType:
    return importlib.import_module("daemons")


def test_a_daemon_is_started_once_and_stopped(
    state: types.SimpleNamespace, daemons: types.ModuleType
) -> None:
    marker = state.run / "ready"
    command = [sys.executable, "-S", "-c", SERVE, str(marker)]
    daemon = daemons.Daemon(name="server", command=command, ready=marker.exists)
    assert daemons.bring_up(state, daemon)
    pid = daemons.running_pid(state, "server")
    assert not daemons.bring_up(state, daemon)
    assert daemons.running_pid(state, "server") == pid
    assert os.getsid(pid) == pid
    assert daemons.recorded(state) == ["server"]
    assert daemons.stop(state, "server")
    assert daemons.began(pid) is None
    assert daemons.recorded(state) == []
    assert not daemons.stop(state, "server")


def test_a_process_of_the_same_number_is_not_stopped(
    state: types.SimpleNamespace, daemons: types.ModuleType
) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", SERVE, os.devnull]) as other:
        record = {"pid": other.pid, "began": "another boot 17", "stop_timeout_s": 1}
        (state.run / "server.daemon.json").write_text(json.dumps(record))
        assert daemons.running_pid(state, "server") is None
        assert not daemons.stop(state, "server")
        assert other.poll() is None
        other.kill()


def test_a_daemon_that_ends_is_told_with_its_log(
    state: types.SimpleNamespace, daemons: types.ModuleType
) -> None:
    error = importlib.import_module("state").RehearsalError
    command = [sys.executable, "-S", "-c", "print('no such volume'); raise SystemExit(1)"]
    daemon = daemons.Daemon(name="server", command=command, ready=lambda: False)
    with pytest.raises(error, match=r"server ended as soon as.*server\.log:\n  no such volume"):
        daemons.bring_up(state, daemon)


def test_a_daemon_that_is_not_ready_in_time_is_told(
    state: types.SimpleNamespace, daemons: types.ModuleType
) -> None:
    error = importlib.import_module("state").RehearsalError
    command = [sys.executable, "-S", "-c", SERVE, os.devnull]
    daemon = daemons.Daemon(
        name="server", command=command, ready=lambda: False, ready_timeout_s=0.2
    )
    with pytest.raises(error, match=r"server runs \(process \d+\) but is not ready"):
        daemons.bring_up(state, daemon)
    daemons.stop(state, "server")


def test_a_port_that_is_taken_is_named(
    state: types.SimpleNamespace, daemons: types.ModuleType
) -> None:
    error = importlib.import_module("state").RehearsalError
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = daemons.Daemon(
            name="server", command=["false"], ready=lambda: True, loopback_ports=(port,)
        )
        with pytest.raises(error, match=f"server needs port {port}, which is taken"):
            daemons.bring_up(state, daemon)


@pytest.mark.parametrize("folder", ["relative", "/", "/with space", "/a,b"])
def test_a_folder_that_configurations_cannot_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    module = importlib.import_module("state")
    monkeypatch.setenv("REHEARSAL_DIR", folder)
    with pytest.raises(module.RehearsalError, match="REHEARSAL_DIR must be an absolute path"):
        module.State.of_environment()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    module = importlib.import_module("state")
    (tmp_path / "run").mkdir()
    with pytest.raises(module.RehearsalError, match="was not made by cluster-up"):
        module.State(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_was_made_is_removed_and_nothing_else(state: types.SimpleNamespace) -> None:
    (state.run / "mariadb").mkdir()
    (state.root / "mine").touch()
    state.remove()
    assert [path.name for path in state.root.iterdir()] == ["mine"]
    (state.root / "mine").unlink()
    state.create()
    state.remove()
    assert not state.root.exists()


def test_what_pip_is_configured_with_holds_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host_pip = importlib.import_module("host_pip")
    wheels, bundle = tmp_path / "wheels", tmp_path / "ca.crt"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").write_text("a wheel")
    bundle.write_text("a certificate")
    shown = (
        f":env:.cert='{bundle}'\n"
        f":env:.find-links='{wheels} https://wheels.example/'\n"
        ":env:.timeout='180'\n"
        "freeze.timeout='1'\n"
        "global.timeout='60'\n"
        "global.cache-dir='/var/cache/pip'\n"
        "global.extra-index-url='file:///srv/index https://index.example/simple'\n"
    )
    given = host_pip.parse(shown)
    assert given["timeout"] == "180"
    root = tmp_path / "root"
    host_pip.lay_out(given, root)
    assert (root / "etc" / "pip.conf").read_text().splitlines() == [
        "[global]",
        "cert = /etc/ssl/certs/ca-certificates.crt",
        "timeout = 180",
        "extra-index-url = https://index.example/simple",
        "find-links = /opt/pip-host/0-wheels https://wheels.example/",
    ]
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "a certificate"
    assert (root / "opt/pip-host/0-wheels/a-1-py3-none-any.whl").read_text() == "a wheel"
    assert "pip's extra-index-url file:///srv/index is left out" in capsys.readouterr().err


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = importlib.import_module("packages")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(importlib.import_module("state").RehearsalError, match="run it as root"):
        packages.assert_host()


def test_another_system_is_told_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = importlib.import_module("packages")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    release = {"ID": "fedora", "VERSION_ID": "41", "PRETTY_NAME": "Fedora Linux 41"}
    monkeypatch.setattr(packages.platform, "freedesktop_os_release", lambda: release)
    with pytest.raises(
        importlib.import_module("state").RehearsalError, match="Debian 12; here is Fedora Linux 41"
    ):
        packages.assert_host()
