"""What a field of a record may hold. A kind takes a value as JSON has it, and returns it as used.

::

    JOB = record({"stage": NAME, "output": PATH}, {"after": optional(NAME)})
    JOB({"stage": "fit", "output": "/fit.out"})   # as it is
    JOB({"stage": 3, "output": "/fit.out"})       # Unfit: stage is a number, and is to be a name
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from launcher.printable import harmless
from launcher.recorded.unfit import Unfit, found_in

Kind = Callable[[Any], Any]
# Of a field of a record: what it may hold, or the fields of a record of which each may be wrong.
Spec: TypeAlias = "Kind | Mapping[str, Spec]"

_MAX_NAME_BYTES = 200  # with a suffix it names a file
_MAX_PATH_BYTES, _MAX_PART_BYTES = 4095, 255  # PATH_MAX with its zero byte, NAME_MAX
# 1970 to 5138: what every calendar can show.
_MAX_SECONDS = 1e11
_MAX_INTEGER = 2**64


def text(value: Any) -> str:
    """Take a text; what a terminal would obey stands in it as escapes."""
    if not isinstance(value, str):
        raise Unfit("a text", found_in(value))
    return harmless(value)


def raw_text(value: Any) -> str:
    """Take a text as it is: a word of a command line, and not for a terminal."""
    if not isinstance(value, str):
        raise Unfit("a text", found_in(value))
    if b"\0" in _encoded(value, "a text of a command line"):
        raise Unfit("a text of a command line", "one with zero bytes")
    return value


def name(value: Any) -> str:
    """Take what can be part of a file's name: a stage, the id of a job."""
    wanted = f"a name of at most {_MAX_NAME_BYTES} bytes, printable and without /"
    if not isinstance(value, str) or not value:
        raise Unfit(wanted, found_in(value))
    if not value.isprintable() or "/" in value or value in (".", ".."):
        raise Unfit(wanted, "one that can be none")
    if len(value.encode()) > _MAX_NAME_BYTES:
        raise Unfit(wanted, found_in(value))
    return value


def path(value: Any) -> str:
    """Take what may be the path of a file, whether it is there or not."""
    if not isinstance(value, str) or not value:
        raise Unfit("a path", found_in(value))
    encoded = _encoded(value, "a path")
    if b"\0" in encoded:
        raise Unfit("a path", "one that can be none")
    longest = max(map(len, encoded.split(b"/")))
    if len(encoded) > _MAX_PATH_BYTES or longest > _MAX_PART_BYTES:
        raise Unfit("a path", found_in(value))
    return value


def _encoded(value: str, wanted: str) -> bytes:
    try:
        return os.fsencode(value)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        raise Unfit(wanted, "one that can be none") from None


def flag(value: Any) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise Unfit("true or false", found_in(value))
    return value


def anything(value: Any) -> Any:
    """Take whatever there is: it is only shown."""
    return value


def number(least: float = 0.0, most: float = 1e15) -> Kind:
    """Return the kind of numbers in a range."""
    return _numeric((int, float), f"a number from {least:g} to {most:g}", least, most)


def integer(least: int = 0, most: int = _MAX_INTEGER) -> Kind:
    """Return the kind of whole numbers in a range."""
    return _numeric((int,), f"a whole number from {least:g} to {most:g}", least, most)


def _numeric(kinds: tuple[type, ...], wanted: str, least: float, most: float) -> Kind:
    def take(value: Any) -> Any:
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:  # nor is nan
            raise Unfit(wanted, found_in(value))
        return value

    return take


def moment(value: Any) -> float:
    """Take a time: seconds since 1970."""
    try:
        return float(number(0.0, _MAX_SECONDS)(value))
    except Unfit as error:
        raise Unfit("a time in seconds since 1970", error.found) from None


def one_of(values: Collection[str]) -> Kind:
    """Return the kind of these texts."""

    def take(value: Any) -> Any:
        if not isinstance(value, str) or value not in values:
            raise Unfit(f"one of {', '.join(values)}", found_in(value))
        return value

    return take


def optional(kind: Kind) -> Kind:
    """Return a kind that null is as well."""
    return lambda value: None if value is None else kind(value)


def list_of(kind: Kind) -> Kind:
    """Return the kind of lists of a kind."""

    def take(value: Any) -> Any:
        if not isinstance(value, list):
            raise Unfit("a list", found_in(value))
        return [_inner(kind, each, f"[{index}]") for index, each in enumerate(value)]

    return take


def pair_of(kind: Kind) -> Kind:
    """Return the kind of lists of two."""

    def take(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            raise Unfit("a list of two", found_in(value))
        return list_of(kind)(value)

    return take


def mapping_of(kind: Kind) -> Kind:
    """Return the kind of mappings to a kind."""

    def take(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Unfit("a mapping", found_in(value))
        return {key: _inner(kind, each, key) for key, each in value.items()}

    return take


def paths_to(kind: Kind) -> Kind:
    """Return the kind of mappings from paths to a kind."""

    def take(value: Any) -> Any:
        taken = mapping_of(kind)(value)
        return {_inner(path, key, "a name in it"): each for key, each in taken.items()}

    return take


def record(needed: Mapping[str, Kind], others: Mapping[str, Kind] | None = None) -> Kind:
    """Return the kind of mappings with certain fields.

    Args:
        needed: the fields that have to be there.
        others: those that may be there. What is in neither is passed on as it is.
    """
    known = {**(others or {}), **needed}

    def take(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Unfit("a mapping", found_in(value))
        for field in needed:
            if field not in value:
                raise Unfit.missing(field)
        taken = {field: _inner(known[field], value[field], field) for field in known.keys() & value}
        return {**value, **taken}

    return take


def fitting(value: Any, fields: Mapping[str, Spec]) -> tuple[dict[str, Any], list[Unfit]]:
    """Return a mapping without the fields that do not fit, and what is wrong with those.

    Raises:
        Unfit: it is none.
    """
    if not isinstance(value, dict):
        raise Unfit("a mapping", found_in(value))
    fit: dict[str, Any] = dict(value)
    unfit: list[Unfit] = []
    for field, spec in fields.items():
        if field not in value:
            continue
        try:
            if isinstance(spec, Mapping):
                fit[field], problems = fitting(value[field], spec)
                unfit += [each.below(field) for each in problems]
            else:
                fit[field] = spec(value[field])
        except Unfit as error:
            unfit.append(error.below(field))
            del fit[field]
    return fit, unfit


def _inner(kind: Kind, value: Any, field: str) -> Any:
    try:
        return kind(value)
    except Unfit as error:
        raise error.below(field) from None
