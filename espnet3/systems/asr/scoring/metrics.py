"""Error rates: what is counted, and how texts are cleaned before they are compared.

A metric of one's own is a subclass of :class:`ErrorRate` that says what its tokens are; name it
by ``_target_`` in ``metrics.yaml``.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from espnet3.utils.errors import ConfigError, nearest


def _without_punctuation(text: str) -> str:
    # Apostrophes and hyphens belong to words ("don't", "twenty-one").
    kept = (
        character
        for character in text
        if character in "'’-" or not unicodedata.category(character).startswith(("P", "S"))
    )
    return "".join(kept)


CLEANERS: dict[str, Callable[[str], str]] = {
    "lowercase": str.lower,
    "uppercase": str.upper,
    "no_punctuation": _without_punctuation,
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
}


class ErrorRate(ABC):
    """Edit operations per reference token.

    Args:
        clean_types: names of :data:`CLEANERS`, applied in order to references and hypotheses
            alike: one name, a list of them, or ``None`` to compare the texts as they are.
        name: what the figure is called; the class's own name when not given.
    """

    unit = "token"

    def __init__(
        self, clean_types: str | Sequence[str] | None = None, name: str | None = None
    ) -> None:
        names = [clean_types] if isinstance(clean_types, str) else list(clean_types or [])
        for cleaner in names:
            if cleaner not in CLEANERS:
                raise ConfigError(
                    f"clean_types names '{cleaner}'.{nearest(cleaner, list(CLEANERS))} "
                    f"Known: {', '.join(CLEANERS)}."
                )
        self.name = name or type(self).__name__
        self._cleaners = [CLEANERS[cleaner] for cleaner in names]

    def clean(self, text: str) -> str:
        """Return ``text`` as it is compared."""
        for cleaner in self._cleaners:
            text = cleaner(text)
        return " ".join(text.split())

    @abstractmethod
    def tokens(self, text: str) -> list[str]:
        """Return what is counted in a cleaned ``text``."""


class WER(ErrorRate):
    """Word error rate; words are what white space parts."""

    unit = "word"

    def tokens(self, text: str) -> list[str]:
        """Return the words."""
        return text.split()


class CER(ErrorRate):
    """Character error rate; the space between words counts as a character."""

    unit = "character"

    def tokens(self, text: str) -> list[str]:
        """Return the characters."""
        return list(text)
