"""Every command line, compared whole. To renew: RENEW_GOLDEN=1 pytest …, then read the change."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path

import pytest

from launcher import registry
from launcher.containers import _client, charliecloud
from launcher.containers.base import ContainerRun, Mount

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).resolve().parents[3]
TREE = Path("/srv/my 'own' \"work\", %j:é $HOME\\n")
PLAIN_TREE = Path("/srv/lab")

SMALL = ContainerRun(
    command=("python", "run.py", "--stages", "train"),
    working_dir=PLAIN_TREE / "egs3",
    image="localhost:5000/espnet3@sha256:0123",
    name="launch-train",
    mounts=(Mount(PLAIN_TREE, PLAIN_TREE), Mount(Path("/opt/launch"), Path("/launcher"), True)),
    environment={"HOME": "/srv/lab/home"},
    uid=1000,
    gids=(1000,),
)
# Asks for everything that there is, in names that break whatever is not quoted.
LARGE = dataclasses.replace(
    SMALL,
    command=("python", "run.py", "--note", 'it\'s "new"\nline, $HOME'),
    working_dir=TREE / "egs3",
    labels={"launcher.launch": "20261123-hello", "launcher.stage": "train"},
    mounts=(
        # below the next one, which has to come first
        Mount(Path("/srv/launch/snapshot/a b.py"), TREE / "a b.py", True),
        Mount(TREE, TREE),
        Mount(Path("/opt/launch"), Path("/launcher"), True),
    ),
    environment={
        "HOME": "/srv/my home",
        "QUOTED": "'x'",
        "GREETING": 'it\'s "me", $HOME:`date`',
        "CUDA_VISIBLE_DEVICES": "7",
        "WANDB_API_KEY": "never to be written",
    },
    secrets=("HF_TOKEN", "WANDB_API_KEY"),
    gids=(1000, 4, 27),
    cpus=4,
    mem_gb=7.5,
    shm_gb=0.5,
    gpus=("0", "2"),
    visible_gpus=("0", "1"),
    num_nodes=2,
    devices=(Path("/dev/infiniband"),),
    stop_grace_s=2.5,
    used=TREE / "home" / ".used-train",
)
PLAIN_LARGE = dataclasses.replace(
    LARGE,
    working_dir=PLAIN_TREE / "egs3",
    mounts=(
        Mount(Path("/srv/launch/snapshot/a.py"), PLAIN_TREE / "a.py", True),
        *SMALL.mounts,
    ),
)
INHERITED = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "USER": "me",
    "LANG": "C.UTF-8",
    "TMPDIR": "/scratch",
    "XDG_RUNTIME_DIR": "/run/user/1000",
    "PYTHONPATH": "/not/for/clients",
    "LD_PRELOAD": "/not/either.so",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "http_proxy": "http://127.0.0.1:3128",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "SLURM_JOB_ID": "7",
    "HF_TOKEN": "hf_secret",
    "WANDB_API_KEY": "wandb_secret",
    "UNRELATED_TOKEN": "stays outside",
    "DOCKER_HOST": "unix:///run/docker.sock",
    "CONTAINERS_CONF": "/etc/containers.conf",
    "CONTAINER_HOST": "ssh://there",
    "APPTAINER_CACHEDIR": "/scratch/cache",
    "APPTAINER_BIND": "/etc:/opt",
    "APPTAINER_NV": "1",
    "APPTAINERENV_EVIL": "1",
    "APPTAINERENV_PREPEND_PATH": "/evil",
    "SINGULARITY_CACHEDIR": "/scratch/cache",
    "SINGULARITY_BIND": "/etc:/opt",
    "SINGULARITYENV_EVIL": "1",
    "ENROOT_CACHE_PATH": "/scratch/enroot",
    "ENROOT_MOUNT_HOME": "y",
    "ENROOT_RESTRICT_DEV": "n",
}

CASES: dict[str, tuple[str, dict[str, object], ContainerRun]] = {
    "docker-small": ("docker", {}, SMALL),
    "docker-large": ("docker", {}, LARGE),
    "docker-cdi": ("docker", {"gpu_flag": "cdi"}, LARGE),
    "docker-terminal": ("docker", {}, dataclasses.replace(SMALL, terminal=True)),
    "docker-settings": (
        "docker",
        {
            "executable": "/opt/docker",
            "python": "python3",
            "global_options": ["--context=there"],
            "run_options": ["--cap-add=SYS_PTRACE"],
            "init": False,
            "rootless": True,
        },
        SMALL,
    ),
    "podman-small": ("podman", {}, SMALL),
    "podman-large": ("podman", {}, LARGE),
    "podman-root": ("podman", {}, dataclasses.replace(LARGE, uid=0, gids=(0, 4))),
    "podman-terminal": ("podman", {}, dataclasses.replace(SMALL, terminal=True)),
    "podman-settings": (
        "podman",
        {"global_options": ["--cgroup-manager=cgroupfs"], "run_options": ["--runtime=crun"]},
        SMALL,
    ),
    "apptainer-small": ("apptainer", {"userns": False}, SMALL),
    "apptainer-large": ("apptainer", {"userns": False}, LARGE),
    "apptainer-terminal": (
        "apptainer",
        {"userns": False},
        dataclasses.replace(SMALL, terminal=True, environment={}),
    ),
    "apptainer-settings": (
        "apptainer",
        {
            "executable": "/opt/bin/singularity",
            "global_options": ["--debug"],
            "run_options": ["--no-mount=bind-paths"],
            "userns": True,
        },
        LARGE,
    ),
    "charliecloud-small": ("charliecloud", {}, SMALL),
    "charliecloud-large": ("charliecloud", {}, dataclasses.replace(LARGE, gpus=())),
    "charliecloud-settings": (
        "charliecloud",
        {"executable": "/opt/ch-run", "run_options": ["-v"], "unpack_dir": "/scratch/images"},
        SMALL,
    ),
    "enroot-small": ("enroot", {}, SMALL),
    "enroot-large": (
        "enroot",
        {"run_options": ["--rw"]},
        dataclasses.replace(PLAIN_LARGE, environment={**PLAIN_LARGE.environment, "SPACED": '"a" '}),
    ),
}
FILES = {
    "apptainer": "/cache/0123.sif",
    "charliecloud": "/cache/0123.sqsh",
    "enroot": "/cache/0123.sqsh",
}


@pytest.mark.parametrize("case", CASES)
def test_the_command_is_what_it_was(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, settings, run = CASES[case]
    for module in (_client, charliecloud):
        monkeypatch.setattr(module, "default_python", lambda: "/opt/python")
    run = dataclasses.replace(run, image=FILES.get(name, run.image))
    runtime = make(name, settings)
    words = [word.replace(str(REPOSITORY), "/srv/launcher") for word in runtime.command(run)]
    environment = runtime.client_environment(run, INHERITED)
    assert "never to be written" not in "".join(words)
    assert "secret" not in "".join(words)
    lines = [
        *map(shlex.quote, words),
        "",
        *(f"{key}={environment[key]!r}" for key in sorted(environment)),
    ]
    text = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_file_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", ["docker", "podman", "apptainer", "charliecloud", "enroot"])
def test_what_would_change_isolation_stays_outside(name: str) -> None:
    client = make(name, {}).client_environment(SMALL, INHERITED)
    assert client["PATH"] == "/usr/bin"
    assert not {key for key in client if "EVIL" in key or "PREPEND" in key}
    left_out = "PYTHONPATH LD_PRELOAD SSH_AUTH_SOCK http_proxy CUDA_VISIBLE_DEVICES HF_TOKEN"
    left_out += " APPTAINER_BIND SINGULARITY_BIND APPTAINER_NV SLURM_JOB_ID UNRELATED_TOKEN"
    assert client.keys().isdisjoint(left_out.split())


@pytest.mark.parametrize("name", ["docker", "podman", "apptainer", "charliecloud", "enroot"])
def test_the_value_of_a_secret_is_in_the_clients_environment_alone(name: str) -> None:
    run = dataclasses.replace(SMALL, secrets=("HF_TOKEN", "NOT_SET"))
    runtime = make(name, {})
    client = runtime.client_environment(run, INHERITED)
    assert [key for key, value in client.items() if value == "hf_secret"] in (
        ["HF_TOKEN"],
        ["APPTAINERENV_HF_TOKEN"],
    )
    assert not any("hf_secret" in word for word in runtime.command(run))


def test_a_runtime_reads_only_its_own_modules() -> None:
    # What a job starts on the host before a container must start without site-packages.
    for module in ("_watched_client", "_charliecloud_root"):
        path = REPOSITORY / "launcher" / "containers" / f"{module}.py"
        code = f"import runpy; runpy.run_path({str(path)!r})"
        assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-IS", "-c", code]) == 0


def make(name: str, settings: dict[str, object]):
    module = registry.load("containers", name)
    return module.Implementation(module.Settings(**settings))
