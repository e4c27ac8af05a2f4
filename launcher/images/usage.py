"""What ``python -m launcher image --help`` says, and the parsers of its commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from launcher.containers.base import ImageFormat

if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = """\
usage: python -m launcher image build NAME [--base REFERENCE] [--pull]
       python -m launcher image push NAME --to REPOSITORY[:TAG]
       python -m launcher image pin NAME [REFERENCE] [--sif] [--sqsh]
       python -m launcher image pull NAME [--for RUNTIME]
       python -m launcher image verify [NAME …]
       python -m launcher image list

Make the images that stages run in, and pin each name to one image by digest.

  build     build containers/NAME; --base takes another base, --pull asks its
            registry for it even if it is here
  push      send what was built last to a registry
  pin       write into the lock file which image NAME is: the one built last, or
            REFERENCE, whose tag is looked up once and now; --sif and --sqsh pin
            the checksum of the converted file too
  pull      fetch the pinned image, verify it, and convert it to the file that
            RUNTIME takes (docker, podman, apptainer, enroot, charliecloud)
  verify    hold what is here against the pins; status 1 where it differs
  list      what is pinned, and what of it is here

options:
  --lock FILE      the image lock file (default: images_lock of your settings,
                   or the project's containers/images.lock.yaml)
  --engine NAME    docker, podman, or auto for the one that answers (default)
  --cache DIR      folder of converted files (default: image_cache of your
                   settings, or ~/.cache/launcher/images)
  -h, --help       show this

examples:
  image build cpu
  image push cpu --to localhost:5000/espnet3/cpu
  image pin cpu --sif
  image pull cpu --for apptainer
  image verify
  image list
"""

FORMATS = {
    "docker": ImageFormat.OCI,
    "podman": ImageFormat.OCI,
    "apptainer": ImageFormat.SIF,
    "enroot": ImageFormat.SQSH,
    "charliecloud": ImageFormat.SQSH,
}
_ENGINES = ("docker", "podman", "auto")


def parser(command: str) -> ArgumentParser:
    """Return the parser of one of the commands."""
    from launcher.commands.arguments import Parser

    usage = next(line for line in HELP.splitlines() if f" image {command} " in f"{line} ")
    made = Parser(
        prog=f"python -m launcher image {command}",
        usage=usage.removeprefix("usage:").strip(),
        add_help=False,
        allow_abbrev=False,
    )
    if command == "verify":
        made.add_argument("names", nargs="*", metavar="NAME")
    elif command != "list":
        made.add_argument("name", metavar="NAME")
    if command == "build":
        made.add_argument("--base")
        made.add_argument("--pull", action="store_true")
    if command == "push":
        made.add_argument("--to", required=True)
    if command == "pin":
        made.add_argument("reference", nargs="?", metavar="REFERENCE")
        made.add_argument("--sif", action="store_true")
        made.add_argument("--sqsh", action="store_true")
    if command == "pull":
        made.add_argument("--for", dest="runtime", choices=FORMATS)
    made.add_argument("--lock", type=Path)
    made.add_argument("--engine", choices=_ENGINES, default="auto")
    made.add_argument("--cache", type=Path)
    return made
