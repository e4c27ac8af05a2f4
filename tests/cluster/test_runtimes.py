"""Docker, Podman, Apptainer and Charliecloud keep what a container runtime promises, as root and as
another user: what goes in arrives as it is, what is written is the user's, and nothing stays.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher import registry
from launcher.containers import _client, charliecloud
from launcher.containers.base import Container, ContainerRun, Feature, ImageFormat, Mount
from launcher.images.pin import ImagePin
from launcher.images.verify import prepare_image
from launcher.job import guard
from tests.cluster.rehearsed import Rehearsal, User

pytestmark = pytest.mark.cluster

HOSTILE = "a b 'c' \"d\", %j:é $HOME \\n `e` (f) #g"
SYSTEM_PYTHON = "/usr/bin/python3"
NAMES = ("docker", "podman", "apptainer", "charliecloud")
# What a runtime adds to the environment by itself.
OWN_PREFIXES = ("APPTAINER_", "SINGULARITY_", "PROMPT_COMMAND", "CH_RUNNING")
OWN = {"PATH", "HOSTNAME", "TERM", "container", "LC_CTYPE", "PS1", "PWD", "LD_LIBRARY_PATH"}
OWN |= {"NVIDIA_VISIBLE_DEVICES", "LANG", "HOME"}


@dataclass
class Box:
    """A runtime, its image, and a folder of the user who starts it."""

    runtime: Container
    image: str
    folder: Path
    environ: dict[str, str]
    user: User | None
    started: list[tuple[subprocess.Popen[bytes], str]] = field(default_factory=list)

    @property
    def uid(self) -> int:
        return self.user.uid if self.user else 0

    @property
    def gid(self) -> int:
        return self.user.gid if self.user else 0

    @property
    def tree(self) -> Path:
        return self.folder / HOSTILE

    def run(self, *command: str, **changes: object) -> ContainerRun:
        mounts = [
            Mount(self.tree, self.tree),
            Mount(self.folder / "inside", Path("/launcher"), True),
        ]
        if self.runtime.image_format in (ImageFormat.SIF, ImageFormat.SQSH):
            mounts.append(Mount(self.folder / "scratch", Path("/tmp")))
        run = ContainerRun(
            command=command,
            working_dir=self.tree,
            image=self.image,
            name=f"launcher-test-{os.getpid()}-{len(self.started)}",
            labels={"launcher.test": "yes"},
            mounts=tuple(mounts),
            environment={"HOME": str(self.tree / "home"), "USER": "somebody"},
            uid=self.uid,
            gids=(self.gid,),
            shm_gb=0.25,
            stop_grace_s=3,
        )
        more = changes.pop("more_mounts", ())
        assert isinstance(more, tuple)
        return dataclasses.replace(run, mounts=(*run.mounts, *more), **changes)

    def python(self, code: str, *arguments: str, **changes: object) -> ContainerRun:
        return self.run("python3", "-c", code, *arguments, **changes)

    def start(self, run: ContainerRun, terminal: int | None = None) -> subprocess.Popen[bytes]:
        """Start a run as its user does, with standard input held open as by a job."""
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                self.runtime.command(run),
                stdin=subprocess.PIPE if terminal is None else terminal,
                stdout=output if terminal is None else terminal,
                stderr=subprocess.STDOUT,
                env=self.runtime.client_environment(run, self.environ),
                cwd=self.tree,
                start_new_session=True,
                preexec_fn=None if terminal is None else lambda: _control(terminal),
                user=self.uid,
                group=self.gid,
                extra_groups=os.getgrouplist(self.user.name, self.gid) if self.user else None,
            )
        self.started.append((process, run.name))
        return process

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def finish(self, run: ContainerRun) -> tuple[int, str]:
        """Run to the end; return exit status and output."""
        status = self.start(run).wait(60)
        return status, self.output()

    def result(self, run: ContainerRun) -> str:
        status, output = self.finish(run)
        assert status == 0, output
        return output

    def containers(self) -> list[str]:
        """Return the names of this test's containers that the engine still has."""
        engine = self.runtime.name
        if engine not in ("docker", "podman"):
            return []
        listing = [engine, "ps", "--all", "--filter=label=launcher.test", "--format={{.Names}}"]
        done = subprocess.run(
            self.user.command(*listing) if self.user else listing,
            env=self.environ,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        return [name for name in done.stdout.split() if f"-{os.getpid()}-" in name]


@pytest.fixture(scope="module")
def environ(rehearsal: Rehearsal) -> Iterator[dict[str, str]]:
    """Have the rehearsal's settings in the environment, for the code that is tested as well."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"USER": "root", **rehearsal.environment}.items():
            patch.setenv(key, value)
        # A user whose home root's tools are in can run neither the environment's interpreter.
        for module in (_client, charliecloud):
            patch.setattr(module, "default_python", lambda: SYSTEM_PYTHON)
        yield dict(os.environ)


@pytest.fixture(scope="module")
def image_cache(rehearsal: Rehearsal) -> Path:
    cache = Path(rehearsal.environment["REHEARSAL_DIR"]) / "cache" / "runtimes"
    cache.mkdir(mode=0o755, exist_ok=True)
    return cache


@pytest.fixture(
    scope="module", params=[f"{name}-{who}" for name in NAMES for who in ("root", "other")]
)
def made(
    request: pytest.FixtureRequest,
    environ: dict[str, str],
    base_image: str,
    image_cache: Path,
    non_root_user: User,
) -> tuple[Container, str, User | None]:
    """Return a runtime, its image, verified as a job does it, and who starts it."""
    name, _, who = request.param.partition("-")
    user = None if who == "root" else non_root_user
    settings: dict[str, object] = {"python": "python3"}
    if name == "apptainer" and user:
        settings["userns"] = False  # nobody but root is asked whether to
    if name == "charliecloud":
        unpacked = image_cache / (user.name if user else "root")
        unpacked.mkdir(exist_ok=True)
        os.chown(unpacked, user.uid if user else 0, -1)
        settings["unpack_dir"] = str(unpacked)
    module = registry.load("containers", name)
    runtime = module.Implementation(module.Settings(**settings))
    repository, _, digest = base_image.partition("@")
    pin = ImagePin("base", repository=repository, digest=digest)
    if name == "podman" and user:
        pull = user.command("podman", "pull", "--quiet", base_image)
        subprocess.run(pull, env=environ, cwd="/", check=True, capture_output=True, timeout=300)
        return runtime, base_image, user
    return runtime, prepare_image(pin, runtime, image_cache).argument, user


@pytest.fixture
def box(
    made: tuple[Container, str, User | None], environ: dict[str, str], user_folder: Path
) -> Iterator[Box]:
    runtime, image, user = made
    owner = user.uid if user else 0
    shutil.chown(user_folder, owner, user.gid if user else 0)
    home = {"HOME": str(user.home), "USER": user.name, "LOGNAME": user.name} if user else {}
    found = Box(runtime, image, user_folder, {**environ, **home}, user)
    for name in ("inside", "scratch", HOSTILE, f"{HOSTILE}/home"):
        (user_folder / name).mkdir()
        shutil.chown(user_folder / name, owner, user.gid if user else 0)
    shutil.copyfile(guard.__file__, user_folder / "inside" / "guard.py")
    yield found
    for process, name in found.started:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode != 0 and user is not None and runtime.name == "podman":
            remove = user.command("podman", "rm", "--force", "--ignore", name)
            subprocess.run(remove, env=environ, cwd="/", check=True, capture_output=True)
        elif process.returncode != 0:
            runtime.remove(name)


SHOW = """\
import json, os, sys
print(json.dumps({
    "cwd": os.getcwd(), "argv": sys.argv[1:], "environ": dict(os.environ),
    "content": open("content").read(), "groups": os.getgroups(), "uid": os.getuid(),
}))
"""


def test_everything_arrives_byte_for_byte(box: Box) -> None:
    (box.tree / "content").write_text(HOSTILE)
    value = HOSTILE + "\n'quoted lines'\n"
    arguments = (HOSTILE, value, "", "'", '"', "$(id)", "-x", "--", "=")
    variables = {
        "HOSTILE": value,
        "SINGLE": "'x'",
        "DOUBLE": '"x"',
        "EMPTY": "",
        "PATHS": "$HOME:/b:${PATH}:`id`:$(id)",
        "BACKSLASH": "\\x\\",
        "COMMAS": "a=1,b=2",
    }
    assert Feature.ANY_PATH in box.runtime.features
    run = box.python(SHOW, *arguments)
    run = dataclasses.replace(run, environment={**run.environment, **variables})
    shown = json.loads(box.result(run))
    assert shown["cwd"] == str(box.tree)
    assert shown["argv"] == list(arguments)
    assert shown["content"] == HOSTILE
    assert {key: shown["environ"][key] for key in variables} == variables
    assert shown["environ"]["HOME"] == str(box.tree / "home")


def test_the_environment_is_what_was_given_and_what_the_image_sets(box: Box) -> None:
    (box.tree / "content").touch()
    box.environ |= {
        "LEAKED": "1",
        "APPTAINERENV_LEAKED": "1",
        "PYTHONPATH": "/x",
        "http_proxy": "x",
    }
    shown = json.loads(box.result(box.python(SHOW)))["environ"]
    given = {"HOME": str(box.tree / "home"), "USER": "somebody"}
    assert {key: shown[key] for key in given} == given
    image_sets = {"PIP_CERT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_DISABLE_PIP_VERSION_CHECK"}
    others = {key for key in shown if key not in given and not key.startswith(OWN_PREFIXES)}
    pip_or_ca = {key for key in others if key.startswith("PIP_") or "CERT" in key or "CA_" in key}
    assert others - OWN - image_sets - pip_or_ca == set()


WRITE = """\
import errno, os, sys
from pathlib import Path
Path("new").write_text("x")
Path("folder").mkdir()
for name in sys.argv[1:]:
    try:
        Path(name).open("a")
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise AssertionError(name)
print(Path("code.py").read_text(), Path("src/code.py").read_text(), Path("data/file").read_text())
"""


def test_files_are_the_users_and_what_is_read_only_stays_so(box: Box) -> None:
    source = box.folder / "snap shot: 1"
    for folder in (source, source / "src", box.tree / "src", box.tree / "data"):
        folder.mkdir()
    for file in ("code.py", "src/code.py"):
        (source / file).write_text("as submitted")
        (box.tree / file).write_text("changed since")
    (source / "file").write_text("data")
    for path in [source, *source.rglob("*"), *box.tree.rglob("*")]:
        shutil.chown(path, box.uid, box.gid)
    mounts = (
        Mount(source / "code.py", box.tree / "code.py", True),
        Mount(source / "src", box.tree / "src", True),
        Mount(source, box.tree / "data", True),
    )
    run = box.python(WRITE, "code.py", "src/code.py", "src/new", "data/new", more_mounts=mounts)
    assert box.result(run).split() == ["as", "submitted", "as", "submitted", "data"]
    for name in ("new", "folder"):
        status = (box.tree / name).stat()
        assert (status.st_uid, status.st_gid) == (box.uid, box.gid)
    assert (box.tree / "code.py").read_text() == "changed since"
    assert {path.name for path in source.iterdir()} == {"code.py", "src", "file"}


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_the_exit_status_is_the_commands(box: Box, script: str, status: int) -> None:
    found, output = box.finish(box.run("sh", "-c", f"echo said; {script}"))
    assert (found, output) == (status, "said\n")


def test_a_command_that_cannot_start(box: Box) -> None:
    status, output = box.finish(box.run("/no/such"))
    assert status == 127
    assert "cannot start /no/such" in output


def test_secrets_are_seen_inside_and_in_no_command_line(box: Box) -> None:
    secret = f"hf_{os.urandom(8).hex()}:$x, 'y'"
    box.environ["HF_TOKEN"] = secret
    code = "import os, sys; print(os.environ['HF_TOKEN'], flush=True); sys.stdin.read()\n"
    code += "import time; time.sleep(60)"
    run = box.python(code, secrets=("HF_TOKEN", "NOT_SET"))
    assert not any(secret in word for word in box.runtime.command(run))
    process = box.start(run)
    until(lambda: box.output().strip() == secret, "the secret inside")
    assert not any(secret in line for line in command_lines())
    process.terminate()
    assert process.wait(20) == 143


# Says "ready", counts the SIGTERMs, takes a second to stop, and exits with 40 and their number.
STOPPABLE = """\
import signal, sys, time
count = 0
def stop(*_):
    global count
    count += 1
signal.signal(signal.SIGTERM, stop)
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, lambda *_: print("warned", flush=True))
print("ready", flush=True)
while not count:
    time.sleep(0.02)
time.sleep(1)
sys.exit(40 + count)
"""


@pytest.mark.parametrize("how", ["client", "byte"])
def test_sigterm_arrives_once_and_leaves_time(box: Box, how: str) -> None:
    process = ready(box, box.python(STOPPABLE, "marker"))
    for _ in range(3):
        if how == "client":
            process.terminate()
        else:
            assert process.stdin is not None
            os.write(process.stdin.fileno(), bytes([signal.SIGTERM]))
        time.sleep(0.1)
    assert process.wait(20) == 41, box.output()
    nothing_left(box)


def test_who_does_not_listen_is_killed_after_the_grace_time(box: Box) -> None:
    process = ready(box, box.python(STOPPABLE, "marker", "deaf", stop_grace_s=1))
    process.terminate()
    assert process.wait(20) == 137
    nothing_left(box)


@pytest.mark.parametrize("how", ["client", "byte"])
def test_a_warning_reaches_who_listens_and_kills_nobody(box: Box, how: str) -> None:
    process = ready(box, box.python(STOPPABLE, "marker"))
    assert process.stdin is not None
    if how == "client":
        # Slurm's warning goes to every process of the job: to clients too.
        process.send_signal(signal.SIGUSR2)
    else:
        os.write(process.stdin.fileno(), bytes([signal.SIGUSR2]))
    until(lambda: "warned" in box.output(), "the warning")
    process.terminate()
    assert process.wait(20) == 41


@pytest.mark.parametrize("deaf", ["deaf", "listening"])
def test_the_end_of_standard_input_ends_everything(box: Box, deaf: str) -> None:
    process = ready(box, box.python(STOPPABLE, "marker", deaf, stop_grace_s=60))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == (137 if deaf == "deaf" else 41)
    nothing_left(box)


@pytest.mark.parametrize("deaf", ["deaf", "listening"])
def test_nothing_is_left_when_the_client_is_killed(box: Box, deaf: str) -> None:
    process = ready(box, box.python(STOPPABLE, "marker", deaf, stop_grace_s=3))
    process.kill()
    process.wait()
    nothing_left(box)


def test_nothing_is_left_when_job_and_client_are_killed(box: Box) -> None:
    process = ready(box, box.python(STOPPABLE, "marker", "deaf", stop_grace_s=60))
    assert process.stdin is not None
    process.kill()
    process.stdin.close()
    process.wait()
    nothing_left(box)


@pytest.mark.parametrize("delay_s", [0, 0.05, 0.15, 0.4])
def test_who_is_stopped_while_starting_never_succeeds(box: Box, delay_s: float) -> None:
    process = box.start(box.python("import time; time.sleep(2); print('end')"))
    time.sleep(delay_s)
    process.terminate()
    assert process.wait(20) != 0
    assert "end" not in box.output()


LIVE = """\
import getpass, multiprocessing, os, shutil, tempfile
from multiprocessing import shared_memory
from pathlib import Path
assert getpass.getuser() == "somebody"
Path.home().joinpath("written").write_text("x")
with tempfile.NamedTemporaryFile() as file:
    assert file.name.startswith("/tmp/")
    file.write(bytes(100_000_000))  # more than the 64 MB of Apptainer's own /tmp
memory = shared_memory.SharedMemory(create=True, size=100_000_000)  # and of Docker's /dev/shm
memory.buf[-1] = 7
def last(name):
    attached = shared_memory.SharedMemory(name)
    return attached.buf[-1]
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(last, [memory.name] * 4) == [7] * 4
    memory.close()
    memory.unlink()
    print(shutil.disk_usage("/dev/shm").total)
"""


def test_there_is_room_to_live(box: Box) -> None:
    (box.tree / "live.py").write_text(LIVE)
    size = int(box.result(box.run("python3", "live.py")))
    if Feature.SHARED_MEMORY in box.runtime.features:
        assert size == 2**28
    assert size >= 2**28
    assert (box.tree / "home" / "written").stat().st_uid == box.uid
    assert not any((box.folder / "scratch").glob("tmp*"))


def test_nobody_has_or_gains_privileges(box: Box) -> None:
    told = box.result(box.python("print(open('/proc/self/status').read())"))
    status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    if box.runtime.name != "charliecloud":  # there over its own user namespace, and nothing else
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}


def test_only_the_gpus_allocated_are_there(box: Box) -> None:
    listing = "import os; print(*sorted(n for n in os.listdir('/dev') if 'gpu' in n))"
    listing += "; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    run = box.python(listing, gpus=("1", "3"))
    run = dataclasses.replace(run, environment={**run.environment, "CUDA_VISIBLE_DEVICES": "9"})
    if box.runtime.name == "podman":
        assert box.result(run).splitlines() == ["fakegpu1 fakegpu3", "None"]
    if box.runtime.name == "apptainer":  # --nv finds no NVIDIA driver here, and says so
        assert box.result(run).splitlines()[-1] == "1,3"
    if box.runtime.name != "charliecloud":
        assert box.result(dataclasses.replace(run, gpus=())).splitlines() == ["", "9"]


def test_devices_are_there_when_asked_for(box: Box) -> None:
    asked = Path("/dev/fakegpu2")
    code = f"import os; print(oct(os.stat({str(asked)!r}).st_mode), open({str(asked)!r}).read())"
    if box.runtime.name in ("docker", "podman"):
        # With devices goes the wish for unlimited locked memory, which a root without
        # CAP_SYS_RESOURCE cannot grant: the last word is ours. Of the other two Podman 4.3 would
        # forget what containers.conf says as soon as one limit is given.
        limits = ["memlock=65536:65536", "nofile=20000:20000", "nproc=10000:10000"]
        options = [f"--ulimit={limit}" for limit in limits]
        settings = box.runtime.settings  # type: ignore[attr-defined]
        box.runtime = type(box.runtime)(  # type: ignore[call-arg]
            dataclasses.replace(settings, run_options=options)
        )
    status = box.result(box.python(code, devices=(asked,))).split()[0]
    assert stat.S_ISCHR(int(status, 8))


def test_several_nodes_share_the_hosts_network(box: Box) -> None:
    code = "import os; print(os.readlink('/proc/self/ns/net'), os.uname().nodename)"
    shown = box.result(box.python(code, num_nodes=2)).split()
    assert shown == [str(Path("/proc/self/ns/net").readlink()), os.uname().nodename]


def test_a_terminal_is_one(box: Box) -> None:
    code = "import os; print(os.isatty(0), os.isatty(1), os.getuid())"
    ours, theirs = pty.openpty()
    process = box.start(box.python(code, terminal=True), terminal=theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 1000):
            said += chunk
    except OSError:  # EIO: its other end is closed
        pass
    os.close(ours)
    assert process.wait(20) == 0, said
    assert said.decode().split()[-3:] == ["True", "True", str(box.uid)]


def test_it_works_here_and_has_a_version(made: tuple[Container, str, User | None]) -> None:
    runtime = made[0]
    assert runtime.problem() is None
    name, _, version = runtime.version().partition(" ")
    assert (name, version[0].isdigit()) == (runtime.name, True)


def test_remove_ends_a_container(box: Box) -> None:
    box.runtime.remove("launcher-test-never-was")
    if box.runtime.name not in ("docker", "podman") or box.user is not None:
        return  # containers without a name have nothing to be removed by; nor are others' ours
    process = ready(box, box.python(STOPPABLE, "marker", "deaf"))
    box.runtime.remove(box.started[-1][1])
    assert process.wait(20) != 0
    nothing_left(box)


def ready(box: Box, run: ContainerRun) -> subprocess.Popen[bytes]:
    """Start a stage that says so when it is ready, under a name by which it is found."""
    run = dataclasses.replace(run, command=tuple(marked(run.command, run.name)))
    process = box.start(run)
    until(lambda: "ready" in box.output() or process.poll() is not None, "the command")
    assert process.poll() is None, box.output()
    return process


def marked(command: Sequence[str], name: str) -> list[str]:
    return [f"{name}-marker" if word == "marker" else word for word in command]


def nothing_left(box: Box) -> None:
    """See that neither a container nor a process of the last run is left after ten seconds."""
    own, name = box.started[-1]

    def gone() -> bool:
        inside = any(f"{name}-marker" in line for line in command_lines(without=own.pid))
        return not inside and not is_served(box.image)

    until(lambda: gone() and not box.containers(), "the end of everything", timeout_s=10)


def _control(terminal: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def is_served(image: str) -> bool:
    """Tell whether a FUSE process still has an image's file open."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            serves = "squashfuse" in (folder / "comm").read_text()
            if serves and any(os.readlink(fd) == image for fd in (folder / "fd").iterdir()):  # noqa: PTH115
                return True
        except OSError:
            continue
    return False


def command_lines(without: int = 0) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) in (os.getpid(), without):
            continue
        try:
            found.append((folder / "cmdline").read_text(errors="surrogateescape"))
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)
