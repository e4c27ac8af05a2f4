"""The Debian packages that the rehearsal cluster is made of."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from state import RehearsalError

PACKAGES = [
    *("slurm-wlm", "munge", "docker.io", "docker-registry", "iptables", "podman", "runc"),
    *("catatonit", "containernetworking-plugins", "uidmap", "slirp4netns", "fuse-overlayfs"),
    *("charliecloud", "mmdebstrap", "squashfs-tools", "squashfuse", "patchelf", "ca-certificates"),
]
# For tests alone: shells that complete command lines, a browser to look at reports, clocks that are
# hours off.
TEST_PACKAGES = ["zsh", "fish", "chromium", "faketime"]
ACCOUNTING_PACKAGES = ["slurmdbd", "mariadb-server"]
# `invoke-rc.d` asks it before it starts a service: 101 forbids. Without it, an installation where
# systemd or sysvinit runs would start the packages' own daemons, on the ports of ours.
POLICY = Path("/usr/sbin/policy-rc.d")


def assert_host() -> None:
    """Raise unless this is Debian 12 and the user is root."""
    if os.geteuid() != 0:
        raise RehearsalError("this installs packages and starts daemons: run it as root")
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if (release.get("ID"), release.get("VERSION_ID")) != ("debian", "12"):
        found = release.get("PRETTY_NAME", platform.platform())
        raise RehearsalError(f"this is written for Debian 12; here is {found}")


def missing(names: list[str]) -> list[str]:
    """Return which of these packages are not installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *names]
    shown = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    installed = {line.split()[0] for line in shown if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def install(names: list[str], log: Path) -> None:
    """Install packages with apt-get, without starting any of their services.

    Raises:
        RehearsalError: apt-get failed; its last lines are in the message.
    """
    options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    forbidden = not POLICY.exists()
    if forbidden:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
            with log.open("w") as output:
                done = subprocess.run(
                    ["apt-get", *options, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
            if done.returncode != 0:
                tail = "\n".join(f"  {line}" for line in log.read_text().splitlines()[-15:])
                raise RehearsalError(f"apt-get {command[0]} failed. The end of {log}:\n{tail}")
    finally:
        if forbidden:
            POLICY.unlink()
