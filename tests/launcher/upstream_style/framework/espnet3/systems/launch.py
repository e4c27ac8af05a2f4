"""The one entry point of every recipe: ``launch(system_cls)``."""

from __future__ import annotations

import argparse
import logging

from omegaconf import OmegaConf

from espnet3.utils.stages_utils import run_stages


def launch(system_cls: type) -> None:
    """Parse the command line, build the system from its configs, run the stages asked for."""
    names = [spec.name for spec in system_cls.stages]
    roles = list(dict.fromkeys(spec.config for spec in system_cls.stages))
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", nargs="+", choices=[*names, "all"], default=names)
    for role in roles:
        parser.add_argument(f"--{role}_config", default=None)
    parser.add_argument("--dry_run", action="store_true")
    args = parser.parse_args()
    stages = [name for name in names if name in args.stages or "all" in args.stages]
    given = {f"{role}_config": getattr(args, f"{role}_config") for role in roles}
    system = system_cls(**{key: OmegaConf.load(path) for key, path in given.items() if path})
    log = logging.getLogger("espnet3")
    logging.basicConfig(level=logging.INFO)
    run_stages(system=system, stages_to_run=stages, args=args, log=log)
