"""The rehearsal cluster, as tests use it. ``make cluster-up`` brings it up; docs/rehearsal.md."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.image_fixtures import cpu_image  # noqa: F401  a fixture
from tests.cluster.rehearsed import Rehearsal, Slurm, User, run
from tests.cluster.slurm_launches import Site, write_recipe
from tests.conftest import HOSTILE_NAME, lacks

REHEARSAL_SCRIPTS = Path(__file__).parent / "rehearsal"
USER = "launcher-test"


@pytest.fixture(scope="session")
def rehearsal() -> Rehearsal:
    """Return the rehearsal cluster; missing in CI is an error."""
    folder = Path(os.environ.get("REHEARSAL_DIR") or "/var/lib/launcher-rehearsal")
    try:
        data = json.loads((folder / "env.json").read_text())
    except FileNotFoundError:
        lacks(f"no rehearsal cluster at {folder}; as root: make cluster-up ACCOUNTING=yes")
    path = {"PATH": os.pathsep.join([*data["path"], os.environ["PATH"]])}
    accounting = data["environment_accounting"]
    return Rehearsal(
        environment=data["environment"] | path,
        environment_accounting=accounting and accounting | path,
        registry=data["registry"],
    )


@pytest.fixture(scope="session")
def slurm(request: pytest.FixtureRequest, rehearsal: Rehearsal) -> Slurm:
    """Return the Slurm without accounts.

    ``@pytest.mark.parametrize("slurm", ["plain", "accounting"], indirect=True)`` runs a test with
    each of the two.
    """
    accounting = getattr(request, "param", "plain") == "accounting"
    environment = rehearsal.environment_accounting if accounting else rehearsal.environment
    if environment is None:
        lacks("that Slurm keeps no accounts; as root: make cluster-up ACCOUNTING=yes")
        raise AssertionError
    nodes = "a1 a2 a3" if accounting else "n1 n2 n3"
    found = Slurm(environment=environment, accounting=accounting, nodes=tuple(nodes.split()))
    assert "is UP" in found.run("scontrol", "ping"), "make cluster-up starts what has ended"
    return found


@pytest.fixture
def site(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a recipe, in a folder with a hostile name, to be launched on SLURM."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    made = Site(slurm, write_recipe(tmp_path / HOSTILE_NAME / "tiny" / "asr"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def non_root_user() -> User:
    """Return a user without privileges; it is made when it is missing, and stays."""
    if os.geteuid() != 0:
        lacks("running as another user needs root")
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        add = ["useradd", "--create-home", "--groups", "docker", "--shell", "/bin/bash", USER]
        subprocess.run(add, check=True, capture_output=True)
        entry = pwd.getpwnam(USER)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


@pytest.fixture
def user_folder(non_root_user: User) -> Iterator[Path]:
    """Return an empty folder of that user's; nobody else may write into pytest's ``tmp_path``."""
    folder = Path(tempfile.mkdtemp(prefix="launcher-rehearsal-"))
    folder.chmod(0o755)
    shutil.chown(folder, non_root_user.name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny_image(rehearsal: Rehearsal) -> str:
    """Return an image of 2 MB that has BusyBox and nothing else, by digest."""
    return _make_image("tiny_image.py", rehearsal)


@pytest.fixture(scope="session")
def base_image(rehearsal: Rehearsal) -> str:
    """Return a base image with Python and this host's pip settings, by digest.

    The first time takes half a minute.
    """
    return _make_image("base_image.py", rehearsal)


def _make_image(script: str, rehearsal: Rehearsal) -> str:
    command = [sys.executable, str(REHEARSAL_SCRIPTS / script)]
    return run(*command, environment=rehearsal.environment).strip()
