"""The page of all settings, made of the dataclasses that hold them."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from espnet3.systems.asr import inference_config, training_checks, training_config
from launcher import registry
from launcher.config import CONF_DIR, GROUPS, LaunchConfig
from launcher.settings.resources import Resources
from tests.docs.reference.markdown import inline, prose, sentence, table, value

TEMPLATE = Path(__file__).resolve().parents[3] / "egs3" / "TEMPLATE" / "asr" / "conf"
CONFIGS = {
    "training": training_config.TrainingConfig,
    "inference": inference_config.InferenceConfig,
    "metrics": inference_config.MetricsConfig,
    "publication": inference_config.PublicationConfig,
}
HEAD = ("key", "type", "default", "what it is")
_LAUNCHER = """# Configuration reference

Made of the typed settings by `python -m tests.docs.reference`. A key that is not here is refused,
and so is a value of another type or outside its range.

## The launcher

Set by `key=value` on the command line, in a recipe's `conf/launch.yaml`, in
`~/.config/launcher/launch.yaml`: what stands first here counts, as [Launching](launching.md#slurm)
shows."""
_STAGES = """## The stages

Keys of a recipe's YAML files, which are merged over those of `egs3/TEMPLATE/asr/conf`; where those
have a value it stands here as the default. Durations end in `_s` or `_ms`, rates in `_hz`. An entry
of `dataset` names a `data_src` (a recipe; its own when left out) and its `data_src_args`. Of an
interval, a square bracket includes the end; of a list, each element counts."""


def configuration() -> str:
    """Return the page."""
    parts = [_LAUNCHER, table(_launch_rows()), "### resources"]
    parts += ["Of all stages; `stages.NAME.KEY` is for one."]
    parts += [table(_rows(Resources, "resources"))]
    for group, kind in GROUPS.items():
        for name in registry.available(kind):
            if registry.is_own(kind, name):
                settings = registry.load(kind, name).Settings
                parts += [f"### {group}: {name}", table(_rows(settings, group))]
    parts.append(_STAGES)
    for role, schema in CONFIGS.items():
        template = yaml.safe_load((TEMPLATE / f"{role}.yaml").read_text())
        parts += [f"### {role}.yaml", *_sections(role, schema, template)]
    return "\n\n".join(parts) + "\n"


def attributes(docstring: str) -> dict[str, str]:
    """Return what a docstring says under ``Attributes:``."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section, re.MULTILINE)
    return {name: inline(re.sub(r"\s+", " ", text)) for name, text in found}


def _sections(role: str, schema: type, template: Any, path: str = "") -> Iterator[str]:
    """Yield the text and the table of a dataclass, then those of the sections below it."""
    if path:
        yield f"#### {role}.yaml: {path}"
    yield prose(inspect.getdoc(schema) or "")
    hints = typing.get_type_hints(schema)
    bounds = training_checks.BOUNDS if role == "training" else inference_config.BOUNDS.get(role, {})
    choices = training_checks.CHOICES if role == "training" else {}
    rows, below = [("key", "type", "default", "allowed")], []
    for each in fields(schema):
        key = f"{path}.{each.name}" if path else each.name
        is_set = isinstance(template, Mapping) and each.name in template
        if is_dataclass(hints[each.name]):
            below.append((hints[each.name], template[each.name] if is_set else {}, key))
            continue
        default = value(template[each.name]) if is_set else _default(each)
        allowed = f"`{bounds[key]}`" if key in bounds else ""
        if key in choices:
            allowed = ", ".join(f"`{choice}`" for choice in choices[key])
        rows.append((f"`{key}`", _type(hints[each.name]), default, allowed))
    if len(rows) > 1:
        yield table(rows)
    for inner, values, key in below:
        yield from _sections(role, inner, values, key)


def _launch_rows() -> list[tuple[str, ...]]:
    """Return the launcher's own settings, explained by the comments of its ``launch.yaml``."""
    text = (CONF_DIR / "launch.yaml").read_text()
    values, told = yaml.safe_load(text), _comments(text)
    hints = typing.get_type_hints(LaunchConfig)
    return [
        HEAD,
        *(
            (
                f"`{each.name}`",
                _type(hints[each.name]),
                value(values[each.name]),
                f"{inline(told[each.name])} {_range(each)}".strip(),
            )
            for each in fields(LaunchConfig)
            if each.name not in (*GROUPS, "resources")
        ),
    ]


def _comments(text: str) -> dict[str, str]:
    """Return what stands in comments above each key; one without its own has that before it."""
    told: dict[str, str] = {}
    comment: list[str] = []
    is_open = False
    for line in text.splitlines():
        if line.startswith("#"):
            comment = [*(comment if is_open else []), line.lstrip("# ")]
            is_open = True
        elif key := re.match(r"(\w+):", line):
            told[key[1]] = " ".join(comment)
            is_open = False
        elif not line:
            comment, is_open = [], False
    return told


def _rows(schema: type, prefix: str) -> list[tuple[str, ...]]:
    told = attributes(inspect.getdoc(schema) or "")
    hints = typing.get_type_hints(schema)
    return [
        HEAD,
        *(
            (
                f"`{prefix}.{each.name}`",
                _type(hints[each.name]),
                _default(each),
                f"{sentence(told[each.name])} {_range(each)}".strip(),
            )
            for each in fields(schema)
            if each.name != "name"
        ),
    ]


def _range(declared: Field[Any]) -> str:
    if "range" not in declared.metadata:
        return ""
    least, most = (f"{bound:.15g}" for bound in declared.metadata["range"])
    unit = declared.metadata["unit"]
    return f"From {least} to {most}{f' {unit}' if unit else ''}."


def _type(hint: Any) -> str:
    plain = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return f"`{re.sub(r'(?:[a-z]+[.])+', '', plain)}`".replace(" | None", "` or `null")


def _default(declared: Field[Any]) -> str:
    made = declared.default_factory
    return value(declared.default if made is MISSING else made())
