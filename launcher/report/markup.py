"""HTML and SVG, put together so that no text of a stage or a file can be taken for markup."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

from launcher.printable import harmless


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | int | float | None"
_VOID = frozenset({"meta", "br", "rect", "line", "path", "polyline", "circle"})


def element(name: str, /, *content: Content, **attributes: Content) -> Markup:
    """Return an element; whatever in it is not :class:`Markup` is escaped.

    ``class_`` stands for ``class``, ``http_equiv`` for ``http-equiv``. Attributes and content that
    are None are left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not content:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Markup:
    """Put pieces one after the other."""
    return Markup("".join(_escaped(each) for each in content if each is not None))


def _escaped(value: Content) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(harmless(str(value)))
