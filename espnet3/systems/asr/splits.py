"""The cuts that a config's references name, made first where they are not there yet."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.data import load_dataset
from espnet3.utils.errors import DataError

if TYPE_CHECKING:
    from lhotse import CutSet

logger = logging.getLogger(__name__)


def load_splits(
    references: Sequence[Any],
    *,
    recipe_dir: str | Path,
    data_dir: str | Path,
    create: Callable[[], object],
) -> list[CutSet]:
    """Return the cuts of each reference, in order.

    Args:
        references: entries of a config's ``dataset.train``, ``.valid`` or ``.test``.
        recipe_dir: the recipe's folder.
        data_dir: where the recipe's data lies.
        create: makes the data sets; called once if one of them cannot be loaded.

    Raises:
        DataError: the data cannot be loaded even after ``create``.
    """

    def load() -> list[CutSet]:
        places = {"recipe_dir": Path(recipe_dir), "data_dir": Path(data_dir)}
        return [load_dataset(reference, **places).cuts() for reference in references]

    try:
        return load()
    except DataError as error:
        logger.info("The data is not ready, so create_dataset runs first: %s", error)
    create()
    return load()


def fingerprint(cuts: CutSet) -> str:
    """Return a hash of all that decoding depends on: manifests, and size and time of the audio."""
    digest = hashlib.sha256()
    for cut in cuts:
        content = cut.to_dict()
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
        for path in sorted(_audio_files(content)):
            status = Path(path).stat() if Path(path).exists() else None
            digest.update(f"{path} {status and (status.st_size, status.st_mtime_ns)}".encode())
    return digest.hexdigest()


def _audio_files(content: Any) -> Iterator[str]:
    """Yield the files that the recordings of a cut, as a nested mapping, are read from."""
    if isinstance(content, dict):
        for source in content.get("sources", []):
            if source.get("type") == "file":
                yield source["source"]
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _audio_files(each)
