"""Start daemons without systemd, know them again later, and stop exactly those.

A daemon runs in the foreground of a session of its own. Its record holds the process id, when that
process began, and the boot it belongs to: a process id alone may by now be somebody else's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from state import RehearsalError, State, write

LOG_TAIL_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A program that serves until it is stopped, and how to tell that it does."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    loopback_ports: tuple[int, ...] = ()
    ready_timeout_s: float = 60
    stop_timeout_s: float = 20


def bring_up(state: State, daemon: Daemon) -> bool:
    """Start a daemon unless it runs, and wait until it is ready; tell whether it was started.

    Raises:
        RehearsalError: a port is taken, the daemon ended, or it was not ready in time.
    """
    log = state.logs / f"{daemon.name}.log"
    pid = running_pid(state, daemon.name)
    if pid is not None:
        _await_ready(daemon, pid, log)
        return False
    for port in daemon.loopback_ports:
        _assert_free(port, daemon.name)
    with log.open("ab") as output:
        process = subprocess.Popen(
            daemon.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **daemon.environment},
            cwd="/",
            start_new_session=True,
            user=daemon.user,
            group=daemon.user,
            extra_groups=[] if daemon.user else None,
            umask=0o022,
            preexec_fn=_heed_signals,
        )
    record = {
        "pid": process.pid,
        "began": began(process.pid),
        "command": daemon.command,
        "stop_timeout_s": daemon.stop_timeout_s,
    }
    write(_record_path(state, daemon.name), json.dumps(record))
    try:
        _await_ready(daemon, process.pid, log, process)
    finally:
        process.returncode = process.returncode or 0  # it is meant to outlive this process
    return True


def running_pid(state: State, name: str) -> int | None:
    """Return the process id of a daemon that was started here and still runs."""
    try:
        record = json.loads(_record_path(state, name).read_text())
    except FileNotFoundError:
        return None
    pid = int(record["pid"])
    return pid if record["began"] is not None and began(pid) == record["began"] else None


def recorded(state: State) -> list[str]:
    """Return the names of all daemons that have a record, the latest started first."""
    records = sorted(state.run.glob("*.daemon.json"), key=lambda path: path.stat().st_mtime_ns)
    return [path.name.removesuffix(".daemon.json") for path in reversed(records)]


def stop(state: State, name: str) -> bool:
    """Stop a daemon if it still runs, and forget it; tell whether there was something to stop."""
    pid = running_pid(state, name)
    if pid is not None:
        stop_timeout_s = json.loads(_record_path(state, name).read_text())["stop_timeout_s"]
        for signum, wait_s in ((signal.SIGTERM, stop_timeout_s), (signal.SIGKILL, 5.0)):
            os.kill(pid, signum)
            if wait_until(lambda: running_pid(state, name) is None, wait_s):
                break
        else:
            raise RehearsalError(f"{name} (process {pid}) does not end, not even killed")
    _record_path(state, name).unlink(missing_ok=True)
    return pid is not None


def began(pid: int) -> str | None:
    """Return what tells this process from any other of its number; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name, in parentheses, may hold anything; then field 3 is the state, 22 the start.
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {fields[19]}"


def answers(*command: str, environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether a command succeeds within a few seconds."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            timeout=15,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def listens(port: int) -> bool:
    """Tell whether something takes connections on this port of the loopback."""
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Look again and again until a condition holds; tell whether it did within the time."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.02
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(0.5, 1.5 * pause_s)
    return True


def log_tail(log: Path) -> str:
    """Return the last lines of a log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])


def _await_ready(
    daemon: Daemon, pid: int, log: Path, process: subprocess.Popen[bytes] | None = None
) -> None:
    identity = began(pid)

    def ended() -> bool:
        if process is not None:
            process.poll()  # or it stays a zombie
        return identity is None or began(pid) != identity

    settled = wait_until(lambda: ended() or daemon.ready(), daemon.ready_timeout_s)
    if ended():
        problem = f"{daemon.name} ended as soon as it was started"
    elif not settled:
        problem = f"{daemon.name} runs (process {pid}) but is not ready"
    else:
        return
    raise RehearsalError(f"{problem}. The end of {log}:\n{log_tail(log)}")


def _heed_signals() -> None:
    """Undo what ``nohup`` and ``&`` ignore: it would be ignored by daemons and all their jobs."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)


def _assert_free(port: int, name: str) -> None:
    with socket.socket() as probe:
        # Connections of a daemon that was just stopped may linger in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise RehearsalError(
                f"{name} needs port {port}, which is taken; `ss -ltnp` tells by what. "
                "Stop that, then run `make cluster-up` again"
            ) from None


def _record_path(state: State, name: str) -> Path:
    return state.run / f"{name}.daemon.json"
