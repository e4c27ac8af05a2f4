"""Every reason that the launcher gives for how a stage stands, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.docs.reference.messages import ROOT, VARIES, text_of

_GIVERS = ("Outcome", "JobState", "Ending")
# What these have for reasons is said of launches, not of stages.
_SHOWS = {"display", "commands", "report", "doctor", "clean", "view.py"}
_SAYERS = ("exit_reason", "_in_words", "in_words", "_why_it_waits", "why_skipped")
# Tables and words of reasons, by the name that they have in the source.
_NAMED = re.compile(
    r"(reasons?|_?IN_WORDS|ENDED_BY|_WAITING_IN_WORDS|_NEVER_STARTED|BY_SCHEDULER|OUT_OF_TIME"
    r"|WAITS_FOR_UPSTREAM|HELD)$"
)


def reasons() -> list[str]:
    """Return the reasons of all modules of the launcher, each once; `…` stands for what varies."""
    found: dict[str, None] = {}
    for path in sorted((ROOT / "launcher").rglob("*.py")):
        if _SHOWS.intersection(path.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for given in _given(node):
                found.update(dict.fromkeys(_texts(given)))

    return [text for text in found if re.search("[a-z]{2}", text)]


def _given(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        yield from (each.value for each in node.keywords if each.arg == "reason")
        yield from node.args if name in _GIVERS else ()
    elif isinstance(node, ast.FunctionDef) and node.name in _SAYERS:
        returned = (each for each in ast.walk(node) if isinstance(each, ast.Return))
        yield from (each.value for each in returned if each.value is not None)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _assigned(target, node.value)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for each, its in zip(target.elts, value.elts, strict=True):
            yield from _assigned(each, its)
    elif isinstance(target, ast.Name) and _NAMED.match(target.id):
        yield value


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Dict):
        for value in node.values:
            yield from _texts(value)
    elif isinstance(node, ast.IfExp | ast.BoolOp):
        of = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
        for each in of:
            yield from _texts(each)
    elif isinstance(node, ast.Call) and len(node.args) == 2:  # of a table, or else
        yield from _texts(node.args[1])
    elif text := " ".join(text_of(node).split()):
        yield text


def is_explained(text: str, explained: str) -> bool:
    """Tell whether a reason of the source is one that the page has."""
    return _fits(explained, text) or _fits(text, explained)


def _fits(pattern: str, text: str) -> bool:
    pieces = pattern.split(VARIES)
    return re.fullmatch(".+".join(map(re.escape, pieces)), text) is not None
