"""Keeping secrets out of logs and records: recognised by the name that holds them.

Names are judged word by word, since ``token_type`` is a setting and ``HF_TOKEN`` is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_SECRET_ANYWHERE = {"secret", "password", "passwd", "passphrase", "credential", "credentials"}
_SECRET_AT_END = {"token", "tokens", "jwt", "pat", "apikey", "auth", "cookie"}
_KEY_QUALIFIERS = {"api", "access", "private", "auth", "account", "signing", "encryption", "ssh"}
# A tokenizer's special symbols are called tokens too.
_SPECIAL_SYMBOLS = {"bos", "eos", "sos", "pad", "unk", "blank", "mask", "sep", "cls", "max", "num"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_URL_PASSWORD = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+(?=@)")
# Shorter values would be found inside ordinary words.
_SHORTEST_VALUE = 6


def looks_secret(name: str) -> bool:
    """Tell whether a key or environment variable of this name is likely to hold a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    if any(word in _SECRET_ANYWHERE for word in words):
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "key":
        return before in _KEY_QUALIFIERS
    if words[-1] in {"token", "tokens"}:
        return before not in _SPECIAL_SYMBOLS
    if words[-1] == "pwd":  # DB_PWD, but not PWD, the working directory
        return len(words) > 1
    return words[-1] in _SECRET_AT_END


def mask_mapping(value: Any) -> Any:
    """Return nested mappings and lists with the values of secret-looking keys replaced."""
    if isinstance(value, Mapping):
        return {
            key: MASK
            if isinstance(item, (str, int)) and item and looks_secret(str(key))
            else mask_mapping(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [mask_mapping(item) for item in value]
    return mask_text(value) if isinstance(value, str) else value


def mask_arguments(arguments: list[str]) -> list[str]:
    """Return a command line with secrets replaced: ``--hf_token X`` and ``key.password=X``."""
    masked: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if hide_next and not argument.startswith("--"):
            masked.append(MASK)
            hide_next = False
        elif equals and value and looks_secret(name):
            masked.append(f"{name}={MASK}")
        else:
            hide_next = argument.startswith("--") and not equals and looks_secret(name)
            masked.append(mask_text(argument))
    return masked


class _KnownSecrets:
    """Values that must not be written, gathered from the environment and the configs."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def add_from(self, mapping: Mapping[str, Any]) -> None:
        """Remember the values of secret-looking keys, nested ones included."""
        for key, value in mapping.items():
            if isinstance(value, Mapping):
                self.add_from(value)
            elif isinstance(value, str) and looks_secret(str(key)):
                self._add(value)

    def _add(self, value: str) -> None:
        if len(value) >= _SHORTEST_VALUE and value not in self._values:
            self._values.append(value)
            # Longest first: one secret may be the beginning of another.
            self._values.sort(key=len, reverse=True)

    def mask(self, text: str) -> str:
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text


_known = _KnownSecrets()


def remember_secrets(mapping: Mapping[str, Any] = os.environ) -> None:
    """Have :func:`mask_text` replace the values of the secret-looking keys of ``mapping``."""
    _known.add_from(mapping)


def mask_text(text: str) -> str:
    """Return ``text`` without the remembered secrets and without passwords in URLs."""
    text = _known.mask(text)
    return _URL_PASSWORD.sub(rf"\g<before>{MASK}", text) if "://" in text else text
