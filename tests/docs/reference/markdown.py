"""Docstrings and values as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

_PLAIN = {"<": "&lt;", "*": "\\*"}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first row is its head."""
    if len(rows) == 1:
        return "It has no settings."
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def value(held: Any) -> str:
    """Return a default as YAML writes it."""
    if held == "":
        return ""
    text = yaml.safe_dump(held, default_flow_style=True, width=10**6, allow_unicode=True)
    return f"`{text.removesuffix(chr(10)).removesuffix(chr(10) + '...').strip()}`"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def inline(text: str) -> str:
    """Turn the marks of docstrings into those of Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))
    return re.sub(r"(`[^`]*`)|([<*])", lambda found: found[1] or _PLAIN[found[2]], text)


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: what stands after ``::`` is shown, sections become lists."""
    parts, block = [], []
    is_block = False
    for paragraph in docstring.split("\n\n"):
        is_indented = all(line.startswith("    ") for line in paragraph.splitlines() if line)
        if is_block and is_indented:
            block.append(paragraph)
            continue
        if block:
            parts.append(_shown(block))
        block, is_block = [], paragraph.rstrip().endswith("::")
        head = paragraph.rstrip().removesuffix("::").rstrip() if is_block else paragraph
        if head:
            parts.append(_paragraph(head) + (":" if is_block else ""))
    return "\n\n".join([*parts, *([_shown(block)] if block else [])])


def _shown(block: list[str]) -> str:
    return f"```text\n{textwrap.dedent(chr(10).join(_spaced(block)))}\n```"


def _spaced(block: list[str]) -> list[str]:
    return "\n\n".join(block).splitlines()


def _paragraph(text: str) -> str:
    title = re.fullmatch(r"(\w+):\n(    .*)", text, re.DOTALL)
    if not title:
        return "\n".join(inline(line.strip()) for line in text.splitlines())
    items = re.findall(r"^    (\S.*(?:\n     +.*)*)", title[2], re.MULTILINE)
    return f"**{title[1]}**\n\n" + "\n".join(_item(item, title[1]) for item in items)


def _item(text: str, section: str) -> str:
    text = re.sub(r"\s+", " ", text)
    name, colon, rest = text.partition(": ")
    is_named = colon and section not in ("Returns", "Yields")
    return f"- `{name}`: {inline(rest)}" if is_named else f"- {inline(text)}"
