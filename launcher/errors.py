"""Every error that the launcher raises on purpose. Each is one message, shown without a traceback.

::

    LauncherError             something the person at the terminal can mend        exit status 1
    ├── UsageError            the command line names what does not exist           exit status 2
    ├── ConfigError           a launcher setting is misspelt or of the wrong type  exit status 2
    ├── RecipeRefused         the recipe's own run.py said no                      its exit status
    ├── ClaimError            another launch writes to a folder of this one's
    ├── SubmissionError       a job could not be handed to the cluster
    ├── ImageError            an image is not pinned, not here, or not the one that is pinned
    ├── NoAnswer              a scheduler does not answer now, and may later
    ├── RecordError           the launch directory cannot be written or read
    └── StageFailed           raised inside a job, so that the cluster sees it fail

A message says what was asked, what was found, and what to type next.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `launcher --help` has no time for typing and difflib
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class LauncherError(Exception):
    """Base of all errors that are shown as one message."""

    exit_status = 1


class UsageError(LauncherError):
    """The command line names a recipe, cluster or container that does not exist."""

    exit_status = 2


class ConfigError(LauncherError):
    """A launcher setting is misspelt or has a value of the wrong type."""

    exit_status = 2


class RecipeRefused(LauncherError):
    """The recipe's ``run.py`` ended before it came to run stages; the message is its own."""

    def __init__(self, message: str, *, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class ClaimError(LauncherError):
    """Another launch writes to a folder that this one would write to."""


class SubmissionError(LauncherError):
    """A job could not be handed to the cluster. What had been submitted is cancelled."""


class ImageError(LauncherError):
    """An image is not pinned by digest, cannot be had, or is not the one that is pinned."""


class NoAnswer(LauncherError):
    """A scheduler does not answer; it may when it is asked again."""


class RecordError(LauncherError):
    """The launch directory cannot be written, or what is in it cannot be read."""


class DamagedLaunch(RecordError):
    """Nothing can be told of a launch, its ``launch.json`` being damaged.

    Args:
        directory: the launch directory.
        damage: what is wrong with it.
    """

    def __init__(self, directory: Path, damage: str) -> None:
        import shlex

        super().__init__(
            f"{damage}. What its stages have written is untouched. Launch again with the command "
            f"itself, and when no job of it is left: rm -r {shlex.quote(str(directory))}"
        )
        self.damage = damage


class StageFailed(LauncherError):
    """The stage of this job did not complete; makes submitit and the cluster record a failure."""


def did_you_mean(asked: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return ``" Did you mean 'x'?"`` for the known names nearest to what was asked, or ``""``."""
    import difflib

    nearest = difflib.get_close_matches(asked, list(known), n=most)
    told = " or ".join(f"'{each}'" for each in nearest)
    return f" Did you mean {told}?" if nearest else ""


def separated(words: Iterable[str]) -> str:
    """Return how stages are typed that were typed with commas."""
    return f"separate stages with spaces: {' '.join(' '.join(words).replace(',', ' ').split())}"
