"""Settings as a launch recorded them, made into what the launcher works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from launcher.recorded.kinds import (
    Kind,
    anything,
    flag,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    raw_text,
)
from launcher.recorded.unfit import Unfit, found_in
from launcher.settings.checks import check_texts
from launcher.settings.ranges import check_ranges

_T = TypeVar("_T")
_MOST = 1e15
_PLAIN: Mapping[Any, Kind] = {
    bool: flag,
    int: integer(-int(_MOST), int(_MOST)),
    float: number(-_MOST, _MOST),
    str: raw_text,
}


def settings(kind: type[_T], value: Any, field: str) -> _T:
    """Return a dataclass with the values of a record.

    Args:
        kind: the dataclass.
        value: of the record.
        field: where it stands.

    Raises:
        Unfit: one of them does not fit, or is of another version of the launcher.
        ConfigError: one of them is out of its range.
    """
    if not isinstance(value, Mapping):
        raise Unfit("a mapping", found_in(value), field)
    hints, known = get_type_hints(kind), {each.name for each in fields(kind)}  # type: ignore[arg-type]
    taken = {}
    for key, inner in value.items():
        if key not in known:
            raise Unfit("a setting of this launcher", "none of its", f"{field}.{key}"[:200])
        try:
            taken[key] = _kind_of(hints[key])(inner)
        except Unfit as error:
            raise error.below(f"{field}.{key}") from None
    for each in fields(kind):  # type: ignore[arg-type]
        is_needed = each.default is MISSING and each.default_factory is MISSING
        if is_needed and each.name not in taken:
            raise Unfit.missing(f"{field}.{each.name}")
    made = kind(**taken)
    check_ranges(made, section=f"{field}.")
    check_texts(made, f"{field}.")
    return made


def _kind_of(hint: Any) -> Kind:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (one,) = (each for each in inner if each is not type(None))
        return optional(_kind_of(one))
    if origin is list:
        return list_of(_kind_of(inner[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return mapping_of(_kind_of(inner[1]))
    return _PLAIN.get(hint, anything)
