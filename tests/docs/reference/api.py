"""The page of the public Python names, read from the source as text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.docs.reference.markdown import prose

ROOT = Path(__file__).resolve().parents[3]
MODULES = (
    "launcher/api.py",
    "launcher/view.py",
    "launcher/errors.py",
    "espnet3/data/dataset.py",
    "espnet3/data/builder.py",
    "espnet3/data/reference.py",
    "espnet3/data/creation.py",
    "espnet3/systems/base/system.py",
    "espnet3/systems/asr/system.py",
    "espnet3/systems/asr/tokenizer.py",
    "espnet3/systems/asr/packing.py",
    "espnet3/systems/asr/checkpoints.py",
    "espnet3/utils/config_utils.py",
    "espnet3/utils/errors.py",
    "espnet3/utils/files.py",
    "espnet3/utils/reuse.py",
    "espnet3/utils/stages_utils.py",
    "egs3/TEMPLATE/asr/run.py",
)
_HEAD = """# Python API

Made of the docstrings by `python -m tests.docs.reference`: what recipes and scripts may rest
on. A mistake that a person can mend is raised as an error of `launcher.errors` or of
`espnet3.utils.errors`."""


def api() -> str:
    """Return the page."""
    parts = [_HEAD]
    for path in MODULES:
        module = ast.parse((ROOT / path).read_text())
        parts += [f"## {path.removesuffix('.py').replace('/', '.')}", _text(module)]
        for node in module.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                parts += [f"### {node.name}", _signature(node), _text(node), *_methods(node)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _methods(owner: ast.stmt) -> Iterator[str]:
    for node in owner.body if isinstance(owner, ast.ClassDef) else []:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield f"#### {owner.name}.{node.name}"
            yield _signature(node)
            yield _text(node)


def _signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        is_property = any("property" in ast.unparse(each) for each in node.decorator_list)
        return _shown(f"{node.name}{'' if is_property else _arguments(node)}{returns}")
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = [f"class {node.name}{f'({bases})' if bases else ''}"]
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            lines.append(f"    {node.name}{_arguments(each)}")
        elif isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_"):
            lines.append(f"    {ast.unparse(each)}")
    return _shown("\n".join(lines))


def _arguments(node: ast.FunctionDef) -> str:
    arguments = ast.unparse(node.args)
    for own in ("self, ", "cls, "):
        arguments = arguments.removeprefix(own)
    return "()" if arguments in ("self", "cls") else f"({arguments})"


def _shown(text: str) -> str:
    return f"```text\n{text}\n```"


def _text(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return prose(ast.get_docstring(node) or "")
