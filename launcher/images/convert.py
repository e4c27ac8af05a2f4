"""From an image to the one file that Apptainer, Enroot or Charliecloud takes.

A SIF is made by unpacking with Apptainer and packing with mksquashfs behind a head of our own, each
time the same way: one image gives the same bytes wherever the same tools make it. A squashfs file
is packed from what Docker or Podman export; without them, Enroot imports it, or Apptainer unpacks.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from launcher.errors import ImageError
from launcher.images import programs
from launcher.images.cache import Converted
from launcher.images.engine import Engine, load_engine
from launcher.images.pin import ImagePin
from launcher.images.reference import is_loopback
from launcher.images.rootfs import image_environment
from launcher.images.sif import DATA_OFFSET, sif_head
from launcher.images.unpack import Tools, image_in, unpacked

# gzip, since every kernel and every squashfuse reads it. Level 4 takes an eighth of the time of
# level 9, the default, and 3 % more room. Users and groups are root's: a container knows no others.
_PACKING = ["-comp", "gzip", "-Xcompression-level", "4", "-all-root", "-no-xattrs"]
_PACKING += ["-root-mode", "755", "-noappend", "-no-progress", "-quiet"]
# What runtimes bring themselves; a user could not unpack the device nodes anyway.
_LEFT_OUT = ["-wildcards", "-e", "dev/*", "proc/*", "sys/*"]


def convert_to_sif(pin: ImagePin, target: Path, tools: Tools) -> Converted:
    """Write an image as a SIF file.

    Raises:
        ImageError: a tool is missing, or failed.
    """
    apptainer = programs.find_apptainer(tools.apptainer)
    with unpacked(pin, tools) as image:
        packer = _pack(image.root, target, tools, offset=DATA_OFFSET)
        with target.open("rb+") as file:
            size_bytes = file.seek(0, os.SEEK_END) - DATA_OFFSET
            file.seek(0)
            file.write(sif_head(size_bytes, platform.machine()))
        tool = f"{programs.version(apptainer)}, {packer}"
        return Converted(image.source, pin.asked, tool, image_environment(image.root))


def convert_to_sqsh(pin: ImagePin, target: Path, tools: Tools) -> Converted:
    """Write an image as a squashfs file.

    Raises:
        ImageError: no tool for it is there, or one failed.
    """
    try:
        engine = load_engine(tools.engine)
    except ImageError as no_engine:
        if programs.find("enroot") and pin.repository is not None:
            return _by_enroot(pin, pin.repository, target, tools)
        if programs.find(tools.apptainer or "apptainer", "singularity"):
            return _by_apptainer(pin, target, tools)
        raise ImageError(
            f"nothing here makes a squashfs file of {pin.asked}: there is neither Enroot nor "
            f"Apptainer, and {no_engine} Or make it elsewhere and copy it here with its .json."
        ) from no_engine
    return _by_engine(engine, pin, target, tools)


def _by_engine(engine: Engine, pin: ImagePin, target: Path, tools: Tools) -> Converted:
    image = image_in(engine, pin, tools.say)
    mksquashfs = programs.find_mksquashfs()
    tools.say(f"{engine.name} exports {pin.asked}, mksquashfs packs it")
    # The engine adds files to what it exports, with the time of now: they get the image's.
    time = {"SOURCE_DATE_EPOCH": str(_seconds(image.created))}
    # Not sqfstar: that of 4.5 takes no compression level (it finds it missing).
    command = [mksquashfs, "-", str(target), "-tar", *_PACKING, *_LEFT_OUT]
    with programs.feed(command, "packing", time) as stdin:
        engine.export(image.image_id, stdin)
    tool = f"{engine.version()}, {programs.version(mksquashfs)}"
    return Converted(pin.digest or image.image_id, pin.asked, tool, image.environment)


def _by_enroot(pin: ImagePin, repository: str, target: Path, tools: Tools) -> Converted:
    enroot = programs.find("enroot")
    assert enroot is not None
    # docker://[REGISTRY#]IMAGE[:TAG|@DIGEST] (enroot 4, doc/cmd/import.md). It checks the layers
    # and the configuration against the manifest, and takes the manifest as the registry gives it.
    # Written from its documentation and source; not run.
    host, slash, path = repository.partition("/")
    has_host = slash and (host == "localhost" or not {".", ":"}.isdisjoint(host))
    image = f"{host}#{path}" if has_host else repository
    source = f"docker://{image}@{pin.digest}" if pin.digest else f"docker://{image}"
    plain_http = {"ENROOT_ALLOW_HTTP": "yes"} if is_loopback(repository) else {}
    tools.say(f"enroot imports {source}")
    programs.run([enroot, "import", "--output", str(target), source], "enroot import", plain_http)
    # The image's variables are in its etc/environment, where Enroot reads them.
    return Converted(pin.digest or pin.asked, pin.asked, programs.version(enroot))


def _by_apptainer(pin: ImagePin, target: Path, tools: Tools) -> Converted:
    apptainer = programs.find_apptainer(tools.apptainer)
    with unpacked(pin, tools) as image:
        packer = _pack(image.root, target, tools)
        tool = f"{programs.version(apptainer)}, {packer}"
        return Converted(image.source, pin.asked, tool, image_environment(image.root))


def _pack(root: Path, target: Path, tools: Tools, *, offset: int = 0) -> str:
    """Pack a folder behind ``offset`` free bytes; return what packed it."""
    mksquashfs = programs.find_mksquashfs()
    tools.say("mksquashfs packs it")
    options = [*_PACKING, "-mkfs-time", "0", "-offset", str(offset)]
    programs.run([mksquashfs, str(root), str(target), *options, *_LEFT_OUT], "mksquashfs")
    return programs.version(mksquashfs)


def _seconds(iso_time: str) -> int:
    """Return an image's time of creation in seconds since 1970; 0 where the engine is silent."""
    with suppress(ValueError):
        return max(0, int(datetime.fromisoformat(f"{iso_time[:19]}+00:00").timestamp()))
    return 0
