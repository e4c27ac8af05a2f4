"""The head of a SIF file, in front of the squashfs image that it wraps.

Apptainer writes the time and a random id into it; two files made of one image then differ. This one
depends on nothing but the size of what follows, so that a checksum says something elsewhere.

The layout is that of version 01 (github.com/apptainer/sif, ``pkg/sif``: ``header`` and
``rawDescriptor``), little-endian without padding.
"""

from __future__ import annotations

import struct

# Where the squashfs image begins: the first page behind the descriptors.
DATA_OFFSET = 40960

_LAUNCH_SCRIPT = b"#!/usr/bin/env run-singularity\n"
_MAGIC = b"SIF_MAGIC"
_VERSION = b"01"
_ARCHITECTURES = {"x86_64": b"02", "aarch64": b"04", "ppc64le": b"06", "s390x": b"11"}
# launch script, magic, version, architecture, UUID; created, modified; descriptors free, total,
# offset, size; data offset, size
_HEADER = struct.Struct("<32s10s3s3s16s8q")
# type; used; id, group, link; offset, size, size with padding, created, modified, uid, gid; name;
# of a partition: file system, kind, architecture
_DESCRIPTOR = struct.Struct("<i?III7q128sii3s373x")
_DESCRIPTORS_OFFSET = 4096
_DESCRIPTORS_TOTAL = 48
_PARTITION = 0x4004
_GROUP_1 = 0xF0000001
_SQUASHFS = 1
_PRIMARY_SYSTEM = 2


def sif_head(size_bytes: int, machine: str) -> bytes:
    """Return the first ``DATA_OFFSET`` bytes of a SIF file.

    Args:
        size_bytes: of the squashfs image that follows.
        machine: what it is for, as ``uname -m`` has it.

    Raises:
        ValueError: SIF has no number for this machine.
    """
    if machine not in _ARCHITECTURES:
        raise ValueError(f"SIF has no number for the architecture {machine}")
    architecture = _ARCHITECTURES[machine]
    times = (0, 0)
    header = _HEADER.pack(
        *(_LAUNCH_SCRIPT, _MAGIC, _VERSION, architecture, bytes(16)),
        *times,
        *(_DESCRIPTORS_TOTAL - 1, _DESCRIPTORS_TOTAL, _DESCRIPTORS_OFFSET),
        *(_DESCRIPTORS_TOTAL * _DESCRIPTOR.size, DATA_OFFSET, size_bytes),
    )
    descriptor = _DESCRIPTOR.pack(
        *(_PARTITION, True, 1, _GROUP_1, 0),
        *(DATA_OFFSET, size_bytes, size_bytes),
        *times,
        *(0, 0),
        b"rootfs",
        *(_SQUASHFS, _PRIMARY_SYSTEM, architecture),
    )
    return (header.ljust(_DESCRIPTORS_OFFSET, b"\0") + descriptor).ljust(DATA_OFFSET, b"\0")
