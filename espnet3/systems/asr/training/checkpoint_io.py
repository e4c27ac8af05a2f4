"""How Lightning writes our checkpoints: whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from espnet3.utils.files import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the destination and renames: a killed process leaves no half checkpoint."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        with atomic_path(Path(path)) as temporary, _Stream(temporary) as stream:
            stream.save(checkpoint)


class _Stream:
    """A file for ``torch.save`` that keeps the operating system's own error.

    torch's zip writer turns a failed write into a RuntimeError without its reason.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._error: OSError | None = None

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def save(self, checkpoint: dict[str, Any]) -> None:
        try:
            torch.save(checkpoint, self)  # type: ignore[arg-type]  # write and flush are enough
        except RuntimeError:
            if self._error is not None:
                raise self._error from None
            raise
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        if self._error is None:
            try:
                self._file.flush()
            except OSError as error:
                self._error = error
