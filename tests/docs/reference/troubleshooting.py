"""The page of messages: each with its cause and cure, by where it is met."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.docs.reference.markdown import table
from tests.docs.reference.messages import Message, messages

_FAMILIES = Path(__file__).with_name("families.yaml")
_HEAD = """# Troubleshooting

Look a message up by its words; `…` stands for what varies in it. First come the reasons that
`status` gives for how a stage ended, then the errors of the launcher, then those of the stages. The
texts of the errors are taken from the code by `python -m tests.docs.reference`. Most say what to do
themselves; where one does not, the cure above its table is meant."""


def troubleshooting() -> str:
    """Return the page."""
    families = yaml.safe_load(_FAMILIES.read_text())
    told = messages()
    rows = [("reason", "cause", "what to do")]
    for given, cause, cure in families["reasons"]:
        rows.append(("<br>".join([given] if isinstance(given, str) else given), cause, cure))
    parts = [_HEAD, "## Why a stage ended", table(rows)]
    for part in families["parts"]:
        parts.append(f"## {part['title']}")
        for family in part["families"]:
            its = [each for each in told if is_of(each, family["modules"])]
            parts += [f"### {family['title']}", f"*Cause:* {family['cause']}"]
            parts += [f"*Cure:* {family['cure']}", _table(its)]
    return "\n\n".join(parts) + "\n"


def is_of(message: Message, modules: Sequence[str]) -> bool:
    """Tell whether a message is of one of these modules, or of a folder that ends in ``/``."""
    return any(
        message.module.startswith(each) if each.endswith("/") else message.module == each
        for each in modules
    )


def _table(its: Sequence[Message]) -> str:
    rows = [tuple(map(_shown, halves(each.text))) for each in its]
    return table([("message", "and what it says to do"), *dict.fromkeys(rows)])


def halves(text: str) -> tuple[str, str]:
    """Return the two halves of a message: what is wrong, and what it asks for, if it does."""
    found = re.search(r"(?<=[.:;]) (?=[A-Z][a-z]+ )(?!The )", text)
    return (text[: found.start()], text[found.end() :]) if found else (text, "")


def _shown(text: str) -> str:
    """Return a text as code, whatever marks it holds."""
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"
