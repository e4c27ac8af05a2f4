"""One log format for the console and the stage logs, and what is written into them."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet3.utils.errors import StorageError, storage_errors
from espnet3.utils.files import write_atomically
from espnet3.utils.masking import mask_text, remember_secrets
from espnet3.utils.stage_files import StageFiles

LOG_FORMAT = (
    "[%(hostname)s] %(asctime)s (%(filename)s:%(lineno)d) %(levelname)s:\t[%(stage)s] %(message)s"
)
DATE_FORMAT = "%Y-%m-%d %H:%M:%S %Z"
NO_STAGE = "-"

_HOSTNAME = socket.gethostname()
# Not a context variable: threads that a stage starts must carry its label too.
_current_stage = NO_STAGE


@contextmanager
def log_stage(name: str) -> Iterator[None]:
    """Label every record of this process with the stage ``name`` while the block runs."""
    global _current_stage
    outer, _current_stage = _current_stage, name
    try:
        yield
    finally:
        _current_stage = outer


class StageFormatter(logging.Formatter):
    """The format of ESPnet3 logs: host, time, place, level and stage; secrets masked."""

    def __init__(self) -> None:
        super().__init__(LOG_FORMAT, DATE_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, its stage label and host filled in."""
        record.hostname = _HOSTNAME
        record.stage = _current_stage
        return mask_text(super().format(record))


class StageLogHandler(logging.StreamHandler):
    """Writes to a stage's log and remembers the first failure to do so.

    A full disk must not flood the console with one traceback per record, nor go unnoticed:
    :func:`~espnet3.utils.stages_utils.run_stages` raises ``failure`` when the stage is over.
    """

    def __init__(self, files: StageFiles) -> None:
        super().__init__(files.stream)
        self.files = files
        self.failure: StorageError | None = None
        self.setFormatter(StageFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        """Keep an operating system's refusal; leave programming errors to ``logging``."""
        error = sys.exc_info()[1]
        try:
            with storage_errors(self.files.log_path):
                raise error or RuntimeError("logging reported an error without one")
        except StorageError as refusal:
            if self.failure is None:
                self.failure = refusal
                print(f"warning: {refusal}", file=sys.stderr)
        except Exception:  # noqa: BLE001 - logging's own handling shows it
            super().handleError(record)

    def close(self) -> None:
        """Close the log file; what a full disk refuses is already in ``failure``."""
        try:
            self.files.close()
        except OSError:
            self.handleError(logging.makeLogRecord({}))
        super().close()


class _ConsoleHandler(logging.StreamHandler):
    """The console's handler: a class of its own, so that a second call finds it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(StageFormatter())


def configure_logging(
    log_dir: Path | None = None,
    level: int = logging.INFO,
    filename: str = "run.log",
) -> logging.Logger:
    """Set the root logger up for a run and return it. Calling it again changes nothing.

    Args:
        log_dir: folder for a log of the whole run beside the stage logs; none by default.
        level: lowest level that is shown.
        filename: of the whole run's log; an earlier one is kept under the next free number.
    """
    root = logging.getLogger()
    root.setLevel(level)
    logging.captureWarnings(True)
    remember_secrets()
    if not any(isinstance(handler, _ConsoleHandler) for handler in root.handlers):
        root.addHandler(_ConsoleHandler())
    if log_dir is not None and not any(type(h) is StageLogHandler for h in root.handlers):
        name = Path(filename)
        root.addHandler(StageLogHandler(StageFiles(log_dir, name.stem, suffix=name.suffix)))
    return root


class _CurrentStageHandler(StageLogHandler):
    """The one handler that belongs to the running stage; at most one is installed."""


def set_stage_log_handler(
    log_dir: Path | None,
    filename: str,
    metadata: Mapping[str, Any] | None = None,
) -> Path | None:
    """Send log records to ``log_dir/filename`` from now on, and nowhere else below a stage.

    A log of that name is renamed to the next free number with its metadata, so that the name
    without a number is always the latest run's.

    Args:
        log_dir: folder of the log; ``None`` only removes the handler of the last stage.
        filename: e.g. ``train.log``.
        metadata: written beside the log as ``<stage>.metadata.json`` when given.

    Returns:
        The log's path, or ``None`` when there is none.

    Raises:
        StorageError: when the folder cannot be written.
    """
    root = logging.getLogger()
    handler = stage_log_handler()
    if handler is not None:
        root.removeHandler(handler)
        handler.close()
    if log_dir is None:
        return None
    name = Path(filename)
    files = StageFiles(Path(log_dir), name.stem, metadata, suffix=name.suffix)
    root.addHandler(_CurrentStageHandler(files))
    return files.log_path


def stage_log_handler() -> StageLogHandler | None:
    """Return the running stage's handler, or ``None`` outside a stage."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _CurrentStageHandler):
            return handler
    return None


def log_stage_metadata(
    logger: logging.Logger,
    system: Any,
    args: argparse.Namespace | None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write config paths and contents, the command line, code state and job to the log.

    Args:
        logger: receives the lines.
        system: its ``*_config`` attributes are the configs, custom roles included.
        args: the parsed command line; its ``*_config`` values are the configs' paths.
        metadata: as :func:`~espnet3.utils.metadata.stage_metadata` gave it, if at hand.
    """
    from espnet3.utils.metadata import stage_metadata

    known = metadata or stage_metadata(_current_stage, system, args)
    # The configs come first: of what follows them, one line is one record.
    for role, config in known["configs"].items():
        logger.info("Config %s: %s\n%s", role, config["path"], _as_yaml(config["resolved"]))
    logger.info("Command: %s", shlex.join(known["command"]["argv"]))
    logger.info("Working directory: %s", known["command"]["working_dir"])
    host = known["host"]
    logger.info("Host: %s, user %s, %d CPUs", host["name"], host["user"], host["cpus"])
    logger.info("Python %s on %s", known["python"], host["platform"])
    git = known["git"]
    if git is not None:
        changed = len(git["changed_files"])
        changes = f"{changed} files changed" if changed else "changed" if git["dirty"] else "clean"
        branch = f" ({git['branch']})" if git["branch"] else ""
        logger.info("Git: %s%s, %s", git["commit"], branch, changes)
    for title in ("devices", "job", "container", "environment"):
        if known[title]:
            logger.info("%s: %s", title.capitalize(), json.dumps(known[title]))
    if getattr(args, "write_requirements", False):
        _write_requirements(logger)


def _as_yaml(content: Any) -> str:
    from omegaconf import OmegaConf

    if not isinstance(content, (dict, list)):
        return str(content)
    return OmegaConf.to_yaml(OmegaConf.create(content)).rstrip()


def _write_requirements(logger: logging.Logger) -> None:
    handler = stage_log_handler()
    if handler is None:
        return
    from espnet3.utils.metadata import installed_packages

    path = handler.files.log_dir / "requirements.txt"
    lines = [f"{name}=={version}" for name, version in installed_packages().items()]
    write_atomically(path, "\n".join(lines) + "\n")
    logger.info("Wrote the versions of %d packages to %s", len(lines), path)
