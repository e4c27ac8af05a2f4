"""What makes a SIF file the same every time: its head, and the unpacked image."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from launcher.images.rootfs import image_environment, make_timeless
from launcher.images.sif import DATA_OFFSET, sif_head

# Read in a file that Apptainer 1.4.5 wrote: where things stand in the head.
_ID = slice(48, 64)
_TIMES = slice(64, 80)
_DESCRIPTOR = 4096


def test_the_head_is_the_same_every_time() -> None:
    head = sif_head(4096, "x86_64")
    assert len(head) == DATA_OFFSET
    assert head[:58].startswith(
        b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + b"01\0" + b"02\0"
    )
    assert head[_ID] == bytes(16)
    assert head[_TIMES] == bytes(16)
    # type, used, id, group, link, offset, size, size with padding
    assert head[_DESCRIPTOR : _DESCRIPTOR + 41].hex() == (
        "044000000101000000010000f00000000000a000000000000000100000000000000010000000000000"
    )
    assert hashlib.sha256(head).hexdigest() == (
        "9297055ab433f1edb7c22eecd44a4bbf97dc524ec8f744ba43b4b93f3329305e"
    )
    with pytest.raises(ValueError, match="no number for the architecture m68k"):
        sif_head(4096, "m68k")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an unpacked image of one file, as Apptainer leaves it."""
    root = tmp_path / "root"
    metadata = root / ".singularity.d"
    (metadata / "env").mkdir(parents=True)
    labels = {
        "launcher.image": "cpu",
        "org.label-schema.build-date": "Monday",
        "org.label-schema.usage.singularity.deffile.from": "localhost:5000/x",
    }
    (metadata / "labels.json").write_text(json.dumps(labels))
    (metadata / "Singularity").write_text("from: localhost:5000/x\n")
    (metadata / "env" / "10-docker2singularity.sh").write_text(
        "#!/bin/sh\n"
        'export PATH="/opt/venv/bin:/bin"\n'
        'export LANG="${LANG:-"C.UTF-8"}"\n'
        'export ODD="${ODD:-"a \\"b\\" \\$c \\\\d"}"\n'
    )
    (root / "old").write_text("old")
    (root / "old").chmod(0o4755)
    os.utime(root / "old", (1_000_000_000, 1_000_000_000))
    (root / "link").symlink_to("nowhere")
    return root


def test_what_differs_between_two_unpackings_goes(root: Path) -> None:
    make_timeless(root, unpacked_at_s=1_100_000_000)
    assert json.loads((root / ".singularity.d/labels.json").read_text()) == {
        "launcher.image": "cpu"
    }
    assert (root / ".singularity.d/Singularity").read_text() == ""
    old = (root / "old").stat()
    assert (int(old.st_mtime), old.st_mode & 0o7777) == (1_000_000_000, 0o755)
    for path in [root, root / "link", *(root / ".singularity.d").rglob("*")]:
        assert path.lstat().st_mtime == 315532800, path


def test_the_images_variables_are_read_back(root: Path) -> None:
    assert image_environment(root) == {
        "PATH": "/opt/venv/bin:/bin",
        "LANG": "C.UTF-8",
        "ODD": 'a "b" $c \\d',
    }
    assert image_environment(root / "elsewhere") == {}
