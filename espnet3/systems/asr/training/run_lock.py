"""One training at a time in an experiment folder: two would overwrite each other's checkpoints."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espnet3.utils.errors import BusyError, storage_errors
from espnet3.utils.metadata import now

logger = logging.getLogger(__name__)

_LOCK = ".training_in_progress"


@contextmanager
def only_training_in(exp_dir: Path) -> Iterator[None]:
    """Keep other trainings out of ``exp_dir`` while the block runs.

    The lock is the process's own: it ends with the process, however that ends. (A record lock, and
    not ``flock``, which the loader's forked workers would hold on to for seconds.)

    Raises:
        BusyError: another process trains there; its host and process id are named.
        StorageError: the folder cannot be written.
    """
    with storage_errors(exp_dir):
        exp_dir.mkdir(parents=True, exist_ok=True)
        lock = (exp_dir / _LOCK).open("a+", encoding="utf-8")
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise BusyError(
                f"Another training is at work in {exp_dir}: {holder}. Wait until it ends or stop "
                "it, or give this one another exp_tag or exp_dir."
            ) from None
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): see to it that no other training uses it",
                exp_dir,
                error.strerror,
            )
        with storage_errors(exp_dir):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {now()}\n")
            lock.flush()
        yield
