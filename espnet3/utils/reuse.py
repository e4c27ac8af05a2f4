"""Whether a stage's earlier output still holds: keyed by everything that it depends on.

A stage that finds its output already there asks *why* it would have to be made again. The
answer is a list of readable reasons; an empty one means that the output is whole and was
made from the same config, checkpoint and data.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet3.utils.errors import storage_errors
from espnet3.utils.files import write_atomically

logger = logging.getLogger(__name__)

_ABSENT = "(absent)"
_LISTED_REASONS = 5


class Kept(dict[str, Any]):
    """What a stage method returns when all that it would have made is there and still holds.

    A mapping of figures like any other; the stage's metadata then says ``"kept": true``.
    """


class Reuse:
    """The record of one stage's output: the key it was made from and the files it left.

    Args:
        marker: the JSON file that holds the record, e.g. ``stats_dir/.collect_stats.done.json``.
            It is written after every output, so that its presence means that they are whole.
        key: JSON-able mapping of what the output depends on, e.g.
            ``{"config": {...}, "manifest": sha256}``.
    """

    def __init__(self, marker: Path, key: Mapping[str, Any]) -> None:
        self.marker = marker
        self.key = json.loads(json.dumps(key, sort_keys=True, default=str))

    def reasons_to_redo(self) -> list[str]:
        """Return why the output must be made again; ``[]`` when it is whole and current."""
        try:
            record = json.loads(self.marker.read_text(encoding="utf-8"))
            earlier_key, outputs = record["key"], dict(record["outputs"])
        except FileNotFoundError:
            return ["no earlier output"]
        except (ValueError, KeyError, TypeError):
            return [f"the record of the earlier output cannot be read: {self.marker}"]
        reasons = list(_differences(earlier_key, self.key))
        reasons += [
            f"missing or altered: {name}"
            for name, seen in outputs.items()
            if _identity(self.marker.parent / name) != seen
        ]
        if len(reasons) > _LISTED_REASONS:
            more = len(reasons) - _LISTED_REASONS
            reasons = [*reasons[:_LISTED_REASONS], f"and {more} more"]
        return reasons

    def mark_done(self, outputs: Iterable[Path]) -> None:
        """Record the output as whole. Call it last, after every file is in place."""
        folder = self.marker.parent
        seen = {_relative(path, folder): _identity(path) for path in outputs}
        missing = [name for name, identity in seen.items() if identity is None]
        if missing:
            raise FileNotFoundError(f"outputs that were to be recorded are not there: {missing}")
        record = {"key": self.key, "outputs": seen}
        write_atomically(self.marker, json.dumps(record, indent=1, sort_keys=True) + "\n")

    def forget(self) -> None:
        """Drop the record: call it before remaking, so that a part is never taken for whole."""
        with storage_errors(self.marker):
            self.marker.unlink(missing_ok=True)


def is_kept(reasons: list[str], what: str, folder: Path) -> bool:
    """Return whether output may stay, there being no ``reasons`` to make it again; log which.

    Args:
        reasons: as :meth:`Reuse.reasons_to_redo` gives them.
        what: the output's name in the log, in the plural.
        folder: where it lies.
    """
    if reasons:
        logger.info("Making the %s anew: %s", what, "; ".join(reasons))
    else:
        logger.info("Kept: the %s, whole and unchanged: %s", what, folder)
    return not reasons


def _relative(path: Path, folder: Path) -> str:
    try:
        return str(path.relative_to(folder))
    except ValueError:
        return str(path.absolute())


def _identity(path: Path) -> list[int] | None:
    """Return size in bytes and modification time in ns, cheap to compare on every run."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _differences(earlier: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(earlier, dict) and isinstance(now, dict):
        for name in sorted({*earlier, *now}):
            below = f"{path}.{name}" if path else name
            yield from _differences(earlier.get(name, _ABSENT), now.get(name, _ABSENT), below)
    elif earlier != now:
        yield f"{path}: {_short(earlier)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:12] + "…" + text[-12:]
