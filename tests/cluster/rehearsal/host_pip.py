"""What the host's pip is configured with, made to hold inside an image.

A bundle of certificates and folders of wheels (find-links) are copied along. An index that is a
folder of the host is left out, for its pages may point anywhere: packages then come from the other
indexes. Everything else (an index's address, a proxy, a time limit) stays as it is, and so may hold
a password: an image made with it is for this host only.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from state import RehearsalError

INSIDE = Path("/opt/pip-host")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Lists of addresses and folders, separated by blanks.
LISTS = {"find-links", "index-url", "extra-index-url"}
LARGEST_FOLDER_MB = 2048


def settings() -> dict[str, str]:
    """Return pip's settings by name; the environment has precedence over files."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    return parse(shown)


def parse(shown: str) -> dict[str, str]:
    """Read what ``pip config list`` prints."""
    by_section: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in shown.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(.*)", line)
        if match:
            by_section[match[1]][match[2]] = str(ast.literal_eval(match[3]))
    merged = by_section["global"] | by_section["install"] | by_section[":env:"]
    return {name: value for name, value in merged.items() if value.strip()}


def certificates(given: Mapping[str, str], environment: Mapping[str, str]) -> Path | None:
    """Return the bundle of certificate authorities that this host goes by."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    candidates = [given.get("cert"), *map(environment.get, names), str(CERTIFICATES)]
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def lay_out(given: Mapping[str, str], root: Path) -> None:
    """Write into ``root`` what an image needs to have pip work in it as on this host."""
    lines = ["[global]"]
    bundle = certificates(given, os.environ)
    if bundle is not None:
        inside = root / CERTIFICATES.relative_to("/")
        inside.parent.mkdir(parents=True)
        shutil.copyfile(bundle, inside)
        lines.append(f"cert = {CERTIFICATES}")
    for name, value in given.items():
        if name in LISTS:
            value = " ".join(filter(None, (_inside(name, word, root) for word in value.split())))
        elif value.startswith("/"):
            continue  # the bundle, which is there already, or of no use inside: a cache, a log
        if value:
            lines.append(f"{name} = {value}")
    conf = root / "etc" / "pip.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text("\n".join(lines) + "\n")


def wheel_folders(given: Mapping[str, str]) -> list[Path]:
    """Return the folders of wheels that are copied."""
    folders = map(_local, given.get("find-links", "").split())
    return [folder for folder in folders if folder is not None and folder.is_dir()]


def _inside(name: str, word: str, root: Path) -> str | None:
    """Return what an item of a list is inside; None for what is not to be there."""
    folder = _local(word)
    if folder is None:
        return word
    if name != "find-links" or not folder.is_dir():
        print(f"pip's {name} {word} is left out of the image", file=sys.stderr)
        return None
    if sum(path.stat().st_size for path in folder.iterdir()) > LARGEST_FOLDER_MB * 2**20:
        raise RehearsalError(f"pip's find-links {word} has more than {LARGEST_FOLDER_MB} MB")
    copies = root / INSIDE.relative_to("/")
    inside = f"{len(list(copies.glob('*')))}-{folder.name}"
    shutil.copytree(folder, copies / inside)
    return str(INSIDE / inside)


def _local(word: str) -> Path | None:
    address = urlsplit(word)
    if address.scheme == "file":
        return Path(unquote(address.path))
    return Path(word) if word.startswith("/") else None
