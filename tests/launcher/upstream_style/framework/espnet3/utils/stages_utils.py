"""Running stages with a log each, and no record beside it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from espnet3.contract.stages import stage_log_dir


def run_stages(
    system: Any,
    stages_to_run: Iterable[str],
    args: argparse.Namespace | None = None,
    log: logging.Logger | None = None,
) -> None:
    """Call the stages in turn; an earlier log of the name, and only that, is renamed."""
    log = log or logging.getLogger(__name__)
    for stage in stages_to_run:
        folder = stage_log_dir(system, stage)
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(_fresh(folder / f"{stage}.log"))
        log.addHandler(handler)
        try:
            log.info("start of %s", stage)
            getattr(system, stage)()
            log.info("end of %s", stage)
        finally:
            log.removeHandler(handler)
            handler.close()


def _fresh(path: Path) -> Path:
    if path.exists():
        number = 1
        while (numbered := path.with_name(f"{path.stem}{number}.log")).exists():
            number += 1
        path.rename(numbered)
    return path
