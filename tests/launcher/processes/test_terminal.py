"""A command in a person's terminal: keys, window, colours, the copy, and what ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launcher.person import CTRL_BACKSLASH, CTRL_C, CTRL_Z, Person

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[3]
# Attends a command as a stage is attended.
ATTEND = """\
import os, signal, sys
from pathlib import Path
from launcher.job import guard
from launcher.processes import terminal
from launcher.containers.docker import Settings
from launcher.job.stop_request import StopRequest

folder, grace_s, *command = sys.argv[1:]
guard.adopt_orphans()
signal.signal(signal.SIGINT, lambda *_: None)  # as the launcher counts Ctrl-C
with open(f"{folder}/out", "wb", buffering=0) as file, StopRequest(in_foreground=True) as stop:
    attended = terminal.start(
        command, cwd=Path(folder), env=os.environ, output=file, grace_s=float(grace_s),
        container=(Settings(executable=f"{folder}/docker"), "the-container"),
    )
    stop.pass_on_to(attended.control)
    print("attending", os.getpid(), flush=True)
    status = terminal.attend(attended, file, in_container="CONTAINER" in os.environ)
guard.kill_descendants()
print("ended with", status, "left", guard.has_children())
sys.exit(status)
"""
# Says who it is and then sleeps, together with a child that is detached; saves when asked to stop.
SLEEPER = """\
import os, signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
def save(signum, frame):
    for part in range(3):
        print("saving", part, flush=True)
        time.sleep(0.1)
    sys.exit(3)
for name in sys.argv[1:]:
    signal.signal(signal.Signals[name], save)
print("\\x1b[?25l\\x1b[31msleeping", os.getpid(), child.pid, flush=True)
while True:
    time.sleep(0.05)
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


Attend = Callable[..., Person]


@pytest.fixture
def attend(hostile_path: Path) -> Iterator[Attend]:
    """Return a function that has a person run a command in the foreground."""
    docker = hostile_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >"${0%docker}removed"\n')
    docker.chmod(0o755)
    persons: list[Person] = []

    def start(*command: str, grace_s: float = 5, prefix: tuple[str, ...] = ()) -> Person:
        attended = [sys.executable, "-c", ATTEND, str(hostile_path), str(grace_s), *command]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        persons.append(Person([*prefix, *attended], cwd=hostile_path, env=environment))
        return persons[-1]

    yield start
    for person in persons:
        person.__exit__()


@pytest.fixture
def sleeper(attend: Attend) -> Callable[..., tuple[Person, int, list[int]]]:
    """Return a function that starts one that sleeps; it returns the launcher's pid and the rest."""

    def start(*signals: str, **options: float) -> tuple[Person, int, list[int]]:
        person = attend(sys.executable, "-c", SLEEPER, *signals, **options)
        launcher = int(person.reads(r"attending (\d+)")[1])
        stage, detached = map(int, person.reads(r"sleeping (\d+) (\d+)").groups())
        watchdog = int(Path(f"/proc/{stage}/stat").read_text().rpartition(")")[2].split()[1])
        assert b"watchdog.py" in Path(f"/proc/{watchdog}/cmdline").read_bytes()
        return person, launcher, [stage, detached, watchdog]

    return start


def test_it_is_a_terminal_in_which_one_can_type(attend: Attend, hostile_path: Path) -> None:
    lines = ("import sys", "print(sys.stdin.isatty(), sys.stdout.isatty())", "breakpoint()")
    code = "\n".join([*lines, "print('on')", "print('and on')"])
    person = attend(sys.executable, "-c", code)
    person.reads("True True")
    person.reads(r"\(Pdb\) ")
    person.enter("p 20 + 3")
    person.reads(r"23\s+\(Pdb\) ")
    person.enter("c")
    person.reads("on\r\nand on\r\n")
    person.reads("ended with 0 left False")
    assert person.leaves() == 0
    kept = (hostile_path / "out").read_text()
    assert "(Pdb) p 20 + 3\n23\n" in kept.replace("\r\n", "\n")
    assert person.modes() == person.modes_before


def test_the_window_and_its_changes_are_seen(attend: Attend) -> None:
    code = """if True:
        import os, signal
        def show(*_):
            print("size", *os.get_terminal_size(), flush=True)
        signal.signal(signal.SIGWINCH, show)
        show()
        input()
    """
    person = attend(sys.executable, "-c", code)
    person.reads("size 100 30")
    person.resize(50, 132)
    person.reads("size 132 50")
    person.enter("")
    assert person.leaves() == 0


def test_colours_arrive_and_are_taken_back(attend: Attend, hostile_path: Path) -> None:
    progress = "\\x1b[?25l\\x1b[32mtraining \\u2588\\u2588\\r"
    person = attend(sys.executable, "-c", f"print('{progress}', end='', flush=True); 1 / 0")
    person.reads("\x1b\\[\\?25l\x1b\\[32mtraining ██\r", colours=True)
    person.reads("ZeroDivisionError", colours=True)
    person.reads(r"\x1b\[0m\x1b\[\?25h", colours=True)
    assert person.leaves() == 1
    kept = (hostile_path / "out").read_bytes().decode()
    assert kept.startswith("\x1b[?25l\x1b[32mtraining ██\r")
    assert "?25h" not in kept, "what the stage printed and nothing else"


def test_a_lot_of_output_is_shown_and_kept_whole(attend: Attend, hostile_path: Path) -> None:
    person = attend(sys.executable, "-c", "for n in range(60000): print('line', n)")
    assert person.leaves() == 0
    lines = [f"line {n}\r\n" for n in range(60000)]
    assert (hostile_path / "out").read_bytes() == "".join(lines).encode()
    assert "".join(lines) in person.seen


def test_typing_into_a_stage_that_does_not_read_stops_nothing(attend: Attend) -> None:
    code = "import time\nfor n in range(300): print('step', n, flush=True); time.sleep(0.01)"
    person = attend(sys.executable, "-c", code)
    person.reads("step 3")
    for _ in range(20):
        person.enter("x" * 1000)
        person.reads(r"step \d+")
    person.reads("step 299")
    assert person.leaves() == 0


def test_ctrl_c_is_a_keyboard_interrupt_there_and_not_here(attend: Attend) -> None:
    # Not one long sleep: Python may be just about to begin it, and then hears of nothing.
    code = "import time\ntry:\n print('sleeping', flush=True)\n while True: time.sleep(0.05)\n"
    person = attend(sys.executable, "-c", code + "except KeyboardInterrupt: print('caught')")
    person.reads("sleeping")
    person.type(CTRL_C)
    person.reads("caught")
    person.reads("ended with 0")
    assert person.leaves() == 0


def test_ctrl_backslash_kills(sleeper) -> None:
    person, _, pids = sleeper("SIGINT")
    person.type(CTRL_BACKSLASH)
    person.reads("ended with 131 left False")
    assert person.leaves() == 131
    assert not any(map(runs, pids))
    assert person.modes() == person.modes_before


def test_ctrl_z_suspends_both_and_fg_continues_them(hostile_path: Path, attend: Attend) -> None:
    (hostile_path / "docker").unlink()  # nothing is to be removed
    shell = ["bash", "--norc", "--noprofile", "-i"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PS1": "sh> ", "HISTFILE": ""}
    code = "import time; n = int(input('number? ')); print('got', n + 1)"
    (hostile_path / "attend.py").write_text(ATTEND)
    with Person(shell, cwd=hostile_path, env=environment) as person:
        person.reads("sh> ")
        person.enter(f'{sys.executable} attend.py . 5 {sys.executable} -c "{code}"')
        launcher = int(person.reads(r"attending (\d+)")[1])
        person.reads(r"number\? ")
        person.type(CTRL_Z)
        person.reads("Stopped")
        person.reads("sh> ")
        states = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            for pid in (launcher, *stages_of(launcher))
        ]
        assert states == ["T", "T"]
        person.enter("stty -a | grep -ow -e 'icanon' -e 'opost'")
        person.reads("opost\r\nicanon\r\n")
        person.resize(40, 90)
        person.enter("fg")
        person.reads("attend.py")
        person.enter("41")
        person.reads("got 42")
        person.reads("ended with 0 left False")
        person.enter("exit")
        assert person.leaves() == 0


def test_ctrl_z_is_kept_from_a_container(sleeper, monkeypatch) -> None:
    """The stage would stop, and nobody could continue it."""
    monkeypatch.setenv("CONTAINER", "yes")
    person, launcher, pids = sleeper("SIGTERM")
    person.type("before" + CTRL_Z + "after")
    person.reads("beforeafter")
    assert "^Z" not in person.seen
    assert state_of(pids[0]) != "T"
    os.kill(launcher, signal.SIGTERM)
    assert person.leaves() == 3


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stages_of(launcher: int) -> list[int]:
    """Return what its watchdog started."""

    def children(pid: int) -> list[int]:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    return [stage for watchdog in children(launcher) for stage in children(watchdog)]


def test_ctrl_z_where_no_shell_could_continue_it(sleeper) -> None:
    """As with `docker exec` or a window of its own: it is as if it had not been pressed."""
    person, launcher, pids = sleeper("SIGTERM")
    person.type(CTRL_Z)
    time.sleep(0.3)
    until(lambda: Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    os.kill(launcher, signal.SIGTERM)
    person.reads("saving 2")
    assert person.leaves() == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_stops_the_stage(sleeper, signum: signal.Signals) -> None:
    person, launcher, pids = sleeper("SIGTERM", "SIGINT")
    os.kill(launcher, signum)
    person.reads("saving 2")
    person.reads("ended with 3 left False")
    assert person.leaves() == 3
    assert not any(map(runs, pids))
    assert person.modes() == person.modes_before


def test_who_does_not_stop_is_killed_after_the_grace_time(sleeper) -> None:
    person, launcher, pids = sleeper(grace_s=0.3)
    os.kill(pids[0], signal.SIGSTOP)  # it hears nothing at all
    os.kill(launcher, signal.SIGTERM)
    assert person.leaves() in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert not any(map(runs, pids))


def test_a_killed_launcher_leaves_nothing_and_a_sane_terminal(sleeper, hostile_path: Path) -> None:
    person, launcher, pids = sleeper("SIGTERM")
    assert not person.modes()[3] & termios.ICANON
    os.kill(launcher, signal.SIGKILL)
    until(lambda: person.modes() == person.modes_before, timeout_s=3)
    until((hostile_path / "removed").exists)
    until(lambda: not any(map(runs, pids)))
    assert (hostile_path / "removed").read_text() == "rm --force the-container\n"
    kept = (hostile_path / "out").read_text()
    assert "saving 2" in kept, "its last words, though there was nobody to hear them"


def test_a_stage_that_is_suspended_does_not_outlive_a_killed_launcher(sleeper) -> None:
    _, launcher, pids = sleeper("SIGTERM")
    os.kill(pids[0], signal.SIGSTOP)
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not any(map(runs, pids)))


def test_a_shell_that_took_the_terminal_back_keeps_its_modes(sleeper) -> None:
    person, launcher, pids = sleeper()
    os.kill(pids[2], signal.SIGSTOP)  # the watchdog is late
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not runs(launcher))
    edited = person.modes_before.copy()
    edited[3] &= ~(termios.ICANON | termios.ECHO)  # as a shell that edits a line
    termios.tcsetattr(person.theirs, termios.TCSANOW, edited)
    os.kill(pids[2], signal.SIGCONT)
    until(lambda: not any(map(runs, pids)))
    assert person.modes()[:4] == edited[:4]


def test_a_closed_window_lets_the_stage_save_its_work(sleeper, hostile_path: Path) -> None:
    person, launcher, pids = sleeper("SIGTERM")
    person.close_window()
    person.process.wait(20)
    assert person.process.returncode == 3
    assert not any(map(runs, [launcher, *pids]))
    assert "saving 2" in (hostile_path / "out").read_text()


@pytest.mark.parametrize("victim", ["watchdog", "stage"])
def test_a_killed_part_ends_it_all(sleeper, victim: str) -> None:
    person, _, pids = sleeper()
    os.kill(pids[2 if victim == "watchdog" else 0], signal.SIGKILL)
    person.reads("left False")
    person.leaves()
    assert not any(map(runs, pids))
    assert person.modes() == person.modes_before


def test_a_command_that_cannot_start_says_so(attend: Attend) -> None:
    person = attend("./nothing here")
    person.reads("cannot start ./nothing here: No such file")
    assert person.leaves() == 127


def test_a_full_disk_does_not_stop_the_stage(small_disk: Path) -> None:
    command = [
        sys.executable,
        "-c",
        ATTEND,
        str(small_disk),
        "5",
        "sh",
        "-c",
        "seq 1 90000; echo end",
    ]
    with Person(command, cwd=small_disk, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as it:
        it.reads("90000\r\nend\r\n")
        it.reads(re.escape(f"launcher: {small_disk / 'out'}: No space left on device"))
        assert it.leaves() == 0


def test_without_a_terminal_it_is_shown_and_kept(hostile_path: Path) -> None:
    code = f"""if True:
        import subprocess, sys
        from launcher.processes import terminal
        with open({str(hostile_path / "out")!r}, "wb") as file:
            process = subprocess.Popen(["seq", "1", "90000"], stdout=subprocess.PIPE)
            print("before")
            status = terminal.tee(process, file)
            print("after", status)
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    told = "".join(f"{n}\n" for n in range(1, 90001))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"before\n{told}after 0\n"
    assert (hostile_path / "out").read_text() == told
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()  # who reads has seen enough
        assert process.wait(20) == 0
    assert (hostile_path / "out").read_text() == told
