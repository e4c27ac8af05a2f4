"""How a run shows what ended it: a person's mistake by its message, a defect by its traceback."""

from __future__ import annotations

import sys
from types import TracebackType

from espnet3.utils.errors import RecipeError
from espnet3.utils.masking import mask_text

_REPORTED = "_espnet3_reported_by_stage"


def mark_reported(error: BaseException, stage: str) -> None:
    """Note that ``stage`` has logged ``error``, so that it is not told twice."""
    setattr(error, _REPORTED, stage)


def show_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Show what ended the run: the message alone where a person can mend it.

    A ``ValueError`` raised by ``run.py`` itself counts: the documentation has recipes guard
    their own configs so.
    """
    stage = getattr(error, _REPORTED, None)
    if stage is not None and isinstance(error, Exception):
        print(f"error: stage '{stage}' failed; see above, or its log", file=sys.stderr)
    elif isinstance(error, RecipeError) or (
        isinstance(error, ValueError) and _raised_by_runner(traceback)
    ):
        print(f"error: {mask_text(str(error))}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _raised_by_runner(traceback: TracebackType | None) -> bool:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == "__main__"
