"""Make an image of 2 MB, print its reference by digest: BusyBox, with all its commands.

Container runtimes are tried with it, where a whole Debian would only take time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from images import make_image, pinned, run
from state import RehearsalError

NAME, TAG = "launcher-tiny", "busybox-1"
# Charliecloud binds over these, Apptainer adds the user to them: they have to be there.
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}
FOLDERS = ["bin", "dev", "etc", "home", "mnt", "proc", "root", "sys", "tmp", "usr/bin", "var/tmp"]


def main() -> int:
    """Print the image's reference, and make the image before that if it is missing."""
    try:
        print(pinned(NAME, TAG) or make())
    except RehearsalError as error:
        print(f"tiny image: {error}", file=sys.stderr)
        return 1
    return 0


def make() -> str:
    """Make the image from Debian's static BusyBox, which need not be installed."""
    with tempfile.TemporaryDirectory() as folder:
        package = download("busybox-static", Path(folder))
        root = Path(folder) / "root"
        run(["dpkg-deb", "--extract", str(package), str(root)])
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        for name, content in FILES.items():
            (root / name).write_text(content)
        busybox = root / "bin" / "busybox"
        for command in run([str(busybox), "--list"]).split():
            if command != busybox.name:
                (root / "bin" / command).symlink_to(busybox.name)
        (root / "tmp").chmod(0o1777)
        (root / "var" / "tmp").chmod(0o1777)
        archive = ["tar", "--create", "--numeric-owner", "--owner=0", "--group=0"]
        archive += [f"--directory={root}", "--exclude=./usr/share", "."]
        return make_image(NAME, TAG, archive, ["ENV PATH=/bin:/usr/bin", 'CMD ["/bin/sh"]'])


def download(name: str, folder: Path) -> Path:
    """Download a package of the host's Debian."""
    # The user _apt may not write where root may.
    apt_get = ["apt-get", "-oAPT::Sandbox::User=root"]
    try:
        run([*apt_get, "download", name], folder=folder)
    except RehearsalError:  # the package lists are not there, or too old
        run([*apt_get, "update"])
        run([*apt_get, "download", name], folder=folder)
    (package,) = folder.glob("*.deb")
    return package


if __name__ == "__main__":
    sys.exit(main())
