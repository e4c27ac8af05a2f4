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
_SECRET_AT_END = {"jwt", "pat", "auth", "authorization", "cookie"}
_KEY_QUALIFIERS = {"api", "access", "private", "secret", "auth", "account", "signing"}
_KEY_QUALIFIERS |= {"encryption", "ssh", "wandb", "hf", "aws", "azure", "github", "openai"}
# A tokenizer's special symbols and its figures are called tokens too.
_ORDINARY_TOKENS = {"bos", "eos", "sos", "pad", "unk", "blank", "mask", "sep", "cls", "special"}
_ORDINARY_TOKENS |= {"max", "min", "num", "total", "batch", "vocab", "word", "sub"}
# A search's or a filter's passes, words that end so, and the working directories of a shell.
_ORDINARY_PASSES = {"first", "second", "one", "two", "single", "multi", "num", "forward"}
_ORDINARY_PASSES |= {"backward", "low", "high", "band", "all", "by", "com", "sur", "old"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JOINED = re.compile(r"(?P<before>.*?)(?P<kind>secret|password|passwd|token|pass|pwd|key)(?P<s>s?)")
_URL_PASSWORD = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+(?=@)")
_URL_PARAMETER = re.compile(r"(?<=[?&])(?P<name>[\w.-]+)=[^&#\s\"']+")
_SECRET_PARAMETERS = {"key", "sig", "signature"}
# Shorter values would be found inside ordinary words.
_SHORTEST_VALUE = 6


def looks_secret(name: str) -> bool:
    """Tell whether a key or environment variable of this name is likely to hold a secret."""
    words = _words(name)
    return _surely_secret(words) or (len(words) > 1 and words[-1] == "key")


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _surely_secret(words: list[str]) -> bool:
    if not words:
        return False
    if any(word in _SECRET_ANYWHERE for word in words) or words[-1] in _SECRET_AT_END:
        return True
    if words[-1] in {"header", "headers"}:
        return words[-2:-1] in (["auth"], ["authorization"])
    # `hf_token` and `hftoken` alike: what is said of the token stands before it.
    match = _JOINED.fullmatch(words[-1])
    if match is None:
        return False
    before = match["before"] or "".join(words[-2:-1])
    if match["kind"] == "key":
        return before in _KEY_QUALIFIERS
    if match["kind"] == "token":
        return before not in _ORDINARY_TOKENS and not (match["s"] and not before)
    if match["kind"] in {"pass", "pwd"}:
        return before not in _ORDINARY_PASSES and words != ["pwd"]
    return True


def mask_mapping(value: Any, secret: bool = False) -> Any:
    """Return nested mappings and lists with all that stands below secret-looking keys replaced."""
    if isinstance(value, Mapping):
        return {
            key: mask_mapping(item, secret or looks_secret(str(key))) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [mask_mapping(item, secret) for item in value]
    if secret and value and not isinstance(value, bool):
        return MASK
    return mask_text(value) if isinstance(value, str) else value


def mask_dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under dotted keys (``hub.token``) as :func:`mask_mapping` does nested ones."""
    return {
        key: mask_mapping(value, any(looks_secret(part) for part in key.split(".")))
        for key, value in values.items()
    }


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

    def add_from(self, value: Any, secret: bool = False) -> None:
        """Remember the texts below keys that surely hold secrets, at any depth."""
        if isinstance(value, Mapping):
            for key, item in value.items():
                self.add_from(item, secret or _surely_secret(_words(str(key))))
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.add_from(item, secret)
        elif secret and isinstance(value, str):
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
    """Return ``text`` without the remembered secrets and without those in URLs."""
    text = _known.mask(text)
    if "://" not in text:
        return text
    return _URL_PARAMETER.sub(_masked_parameter, _URL_PASSWORD.sub(rf"\g<before>{MASK}", text))


def _masked_parameter(match: re.Match[str]) -> str:
    name = match["name"]
    if looks_secret(name) or _words(name)[-1:] in ([each] for each in _SECRET_PARAMETERS):
        return f"{name}={MASK}"
    return match[0]
