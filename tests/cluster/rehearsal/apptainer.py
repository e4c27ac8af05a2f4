"""Apptainer, which Debian 12 does not have: the package of Debian unstable under a private prefix.

Its binaries are made to load the C library of unstable from the same prefix, so that nothing of the
host is touched. apt-get fetches and verifies the packages, with package lists of their own.

Known to work: apptainer 1.4.5-2, libc6 2.43-7, libseccomp2 2.6.1-1+b2, libsqlite3-0 3.53.4-2.
Should unstable one day hold something that does not, put those four .deb files, which Debian's
snapshot archive keeps, into cache/apptainer/deb: what is there is not fetched.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from state import RehearsalError, State, make_folder, write, write_template

PACKAGES = ["apptainer", "libc6", "libseccomp2", "libsqlite3-0"]
SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {uri} unstable main\n"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
BINARIES = ["usr/bin/apptainer", f"{LIBRARIES}/apptainer/bin/starter"]
CAP_SYS_RESOURCE = 24


def bring_up_apptainer(state: State) -> bool:
    """Unpack Apptainer unless it is there, and write its wrapper; tell whether it was unpacked."""
    prefix = state.cache / "apptainer" / "root"
    complete = prefix / "complete.json"
    unpacked = not complete.exists()
    if unpacked:
        shutil.rmtree(prefix, ignore_errors=True)
        packages = _fetch(state)
        _unpack(packages, prefix)
        _relocate(prefix)
        write(complete, json.dumps([package.name for package in packages]))
    userns = "" if _may_raise_limits() else "export APPTAINER_USERNS=${APPTAINER_USERNS-1}"
    wrapper = {"binary": prefix / BINARIES[0], "userns": userns}
    write_template("apptainer", state.bin / "apptainer", 0o755, **wrapper)
    return unpacked


def _fetch(state: State) -> list[Path]:
    folder = make_folder(state.cache / "apptainer" / "deb")
    found = _found(folder)
    if len(found) < len(PACKAGES):
        apt = make_folder(state.cache / "apptainer" / "apt")
        for name in ("lists/partial", "cache/archives/partial"):
            (apt / name).mkdir(parents=True, exist_ok=True)
        write(apt / "sources.list", SOURCE.format(uri=_mirror()))
        write(apt / "status", "")
        options = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": apt / "lists",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
            "Acquire::Check-Valid-Until": "false",  # a mirror that lags behind will do
            "APT::Sandbox::User": "root",  # the user _apt may not write where root may
        }
        apt_get = ["apt-get", *(f"-o{key}={value}" for key, value in options.items())]
        _run([*apt_get, "update"], folder)
        wanted = [name for name in PACKAGES if name not in found]
        _run([*apt_get, "download", *wanted], folder)
        shutil.rmtree(apt)
        found = _found(folder)
    return [found[name] for name in PACKAGES]


def _mirror() -> str:
    """Return the address of the mirror that this host takes Debian's own packages from."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)"]
    listed = _run([*targets, "Created-By: Packages"], Path("/"))
    for line in listed.splitlines():
        uri, _, rest = line.partition(" ")
        if rest == "Debian bookworm":
            return uri
    raise RehearsalError("apt-get has no Debian 12 (bookworm) among its sources: apt-get update")


def _found(folder: Path) -> dict[str, Path]:
    return {path.name.partition("_")[0]: path for path in sorted(folder.glob("*_*.deb"))}


def _unpack(packages: list[Path], prefix: Path) -> None:
    make_folder(prefix)
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package), str(prefix)], prefix)


def _relocate(prefix: Path) -> None:
    libraries = prefix / LIBRARIES
    loader = libraries / "ld-linux-x86-64.so.2"
    for name in BINARIES:
        loading = ["--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(libraries)]
        _run(["patchelf", *loading, str(prefix / name)], prefix)
    # /usr/bin/apptainer looks for its configuration in usr/etc; lib/…/starter in usr/lib/etc.
    shutil.move(prefix / "etc", prefix / "usr" / "etc")
    (prefix / "usr" / "lib" / "etc").symlink_to("../etc")
    for folder in ("usr/var", "usr/lib/var"):
        (prefix / folder / "lib" / "apptainer" / "mnt" / "session").mkdir(parents=True)
    shown = _run([str(prefix / BINARIES[0]), "--version"], prefix)
    if not re.search(r"apptainer version 1\.", shown):
        raise RehearsalError(f"{prefix / BINARIES[0]} --version says {shown!r}")


def _may_raise_limits() -> bool:
    status = Path("/proc/self/status").read_text()
    bounding = re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE)
    return bounding is not None and bool(int(bounding[1], 16) >> CAP_SYS_RESOURCE & 1)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RehearsalError(
            f"Apptainer could not be made: {' '.join(command[:1])} failed: {done.stderr.strip()}. "
            f"{Path(__file__).name} says how to go on with packages fetched by hand"
        )
    return done.stdout
