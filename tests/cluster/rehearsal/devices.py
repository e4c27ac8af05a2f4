"""Fake GPUs, their CDI specification, and the modes that udev would have given to some devices."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from state import State, make_folder, write

GPUS_PER_NODE = 4
FAKE_GPUS = [Path(f"/dev/fakegpu{number}") for number in range(GPUS_PER_NODE)]
NULL_DEVICE = os.makedev(1, 3)
CDI_KIND = "nvidia.com/gpu"
# Podman 4.3 looks in these two only; what is in /run is gone after a restart, as our daemons are.
CDI_FOLDERS = [Path("/etc/cdi"), Path("/run/cdi")]
CDI_SPEC = CDI_FOLDERS[1] / "launcher-rehearsal.json"
# Everybody may open these where udev runs; without it they are root's alone, and then neither
# Apptainer (squashfuse) nor rootless Podman (slirp4netns) works for anybody else.
EVERYBODYS = [Path("/dev/fuse"), Path("/dev/net/tun")]


def bring_up_devices(state: State) -> None:
    """Make the devices that are not there, and describe them to container runtimes."""
    for path in FAKE_GPUS:
        if not path.exists():
            os.mknod(path, stat.S_IFCHR | 0o666, NULL_DEVICE)
            path.chmod(0o666)
    _write_cdi_spec()
    _open_to_everybody(state)


def take_down_devices(state: State) -> None:
    """Remove what was made here, and give devices their mode back."""
    for path in FAKE_GPUS:
        if path.is_char_device() and path.stat().st_rdev == NULL_DEVICE:
            path.unlink()
    CDI_SPEC.unlink(missing_ok=True)
    record = _mode_record(state)
    if record.exists():
        for name, mode in json.loads(record.read_text()).items():
            Path(name).chmod(mode)
        record.unlink()


def _write_cdi_spec() -> None:
    specs = [path for folder in CDI_FOLDERS if folder.is_dir() for path in folder.iterdir()]
    for path in specs:
        if path != CDI_SPEC and path.is_file() and CDI_KIND in path.read_text(errors="replace"):
            print(f"  {path} describes {CDI_KIND} already: it stays, and the fake ones have no CDI")
            return
    nodes = {str(number): [path] for number, path in enumerate(FAKE_GPUS)}
    devices = [
        {
            "name": name,
            "containerEdits": {"deviceNodes": [{"path": str(path)} for path in paths]},
        }
        for name, paths in {**nodes, "all": FAKE_GPUS}.items()
    ]
    make_folder(CDI_SPEC.parent)
    spec = {"cdiVersion": "0.5.0", "kind": CDI_KIND, "devices": devices}
    write(CDI_SPEC, json.dumps(spec, indent=2) + "\n")


def _open_to_everybody(state: State) -> None:
    record = _mode_record(state)
    modes = json.loads(record.read_text()) if record.exists() else {}
    for path in EVERYBODYS:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666
        if mode != 0o666:
            modes[str(path)] = mode
            write(record, json.dumps(modes))
            path.chmod(0o666)


def _mode_record(state: State) -> Path:
    return state.run / "device-modes.json"
