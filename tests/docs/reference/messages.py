"""Every message that an error is raised with, read from the source; `…` stands for what varies."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
VARIES = "…"
_RAISERS = (
    "DamagedLaunch",
    "NoAnswer",
    "RecipeRefused",
    "StageFailed",
    "StageInterrupted",
    "Outcome",
    "Unreachable",
)


@dataclass(frozen=True)
class Message:
    """One message: the module it is in, the error, and its text."""

    module: str
    error: str
    text: str


def messages() -> list[Message]:
    """Return the messages of all modules, in the order of the source, each once."""
    found: dict[Message, None] = {}
    for package in ("launcher", "espnet3", "egs3"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = str(path.relative_to(ROOT))
            for error, text in _raised(ast.parse(path.read_text())):
                found[Message(module, error, text)] = None
    return list(found)


def _raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name.endswith(("Error", "_error", "_refused")) or name in _RAISERS:
            texts = [
                text for each in call.args if (text := text_of(each)).strip(f"{VARIES}: ().;,")
            ]
            if texts:
                yield name, " ".join(texts[-1].split())


def text_of(node: ast.expr) -> str:
    """Return what an expression is, as far as it stands in the source."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = [each.value if isinstance(each, ast.Constant) else VARIES for each in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp):
        return "".join(text_of(each) or VARIES for each in (node.left, node.right))
    return ""
