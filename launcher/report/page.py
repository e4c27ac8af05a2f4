"""The page of a report: what stands where."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from launcher import status as states
from launcher.display.render import duration
from launcher.report.charts import chart
from launcher.report.data import Report
from launcher.report.markup import Markup, element, joined
from launcher.report.tables import result_tables, stage_table, state_mark
from launcher.report.timeline import legend, timeline
from launcher.view import StageView

# A page that could fetch nothing even if a text in it were markup.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(report: Report) -> str:
    """Return the whole page."""
    style = Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{report.view.experiment}: {report.view.in_words}"),
        element("style", style),
    )
    body = element(
        "body",
        element(
            "main",
            _header(report),
            _warnings(report),
            *(_failure(report, stage) for stage in report.view.stages if _has_failed(stage)),
            _section("Timeline", timeline(report), legend(report), _time_note(report)),
            _section("Results", result_tables(report)),
            _section("Stages", stage_table(report), _use_note(report)),
            _section("Curves", *_curves(report)),
            _section("Metadata", *_metadata(report)),
            _footer(report),
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _section(title: str, *content: Markup) -> Markup:
    if not any(content):
        return Markup("")
    return element("section", element("h2", title), *content)


def _header(report: Report) -> Markup:
    view = report.view
    start, end = report.span_s
    lasted = f"{'took' if view.has_ended else 'for'} {duration(end - start)}"
    facts = {
        "Launch": str(view.directory),
        "Recipe": view.record.get("recipe_dir"),
        "Command": shlex.join(map(str, view.record.get("command_line") or ())),
        "By": _by(report),
        "Started": f"{_moment(start)}, {lasted}",
        "Runs": f"on {view.cluster}, {_in_what(report)}",
        "Images": _images(report),
        "Code": _code(view.record.get("snapshot")),
    }
    rows = [
        joined(element("dt", name), element("dd", value)) for name, value in facts.items() if value
    ]
    return element(
        "header",
        element("h1", view.experiment, " ", state_mark(view.state)),
        element("p", view.directory.name, " · ", view.in_words, class_="lead"),
        element("dl", *rows),
    )


def _by(report: Report) -> str:
    host = _mapping(report.view.record.get("launcher")).get("host")
    return "@".join(str(each) for each in (report.owner, host) if each)


def _in_what(report: Report) -> str:
    container = _mapping(_mapping(report.view.record.get("config")).get("container")).get("name")
    return "in no container" if container in (None, "none") else f"in {container}"


def _images(report: Report) -> Markup | None:
    lines: dict[str, None] = {}
    for job in report.view.record["jobs"]:
        image = _mapping(job.get("image"))
        if image.get("asked"):
            lines[f"{image.get('name')}: {image['asked']}"] = None
    return joined(*(element("div", line) for line in lines)) if lines else None


def _code(snapshot: object) -> Markup | None:
    lines = []
    for root in _mapping(snapshot).get("roots") or ():
        found = _mapping(root)
        commit = str(found.get("commit") or "")[:12] or "in no git"
        branch = f" on {found['branch']}" if found.get("branch") else ""
        dirty = ", with changes that are not committed" if found.get("dirty") else ""
        lines.append(element("div", f"{commit}{branch}{dirty}: {found.get('path')}"))
    return joined(*lines) if lines else None


def _warnings(report: Report) -> Markup:
    told = [*report.view.damaged, *(report.view.record.get("notices") or ())]
    if report.view.unasked:
        told.append(report.view.unasked)
    if not told:
        return Markup("")
    return element("ul", *(element("li", str(each)) for each in told), class_="notices")


def _has_failed(stage: StageView) -> bool:
    return stage.status.state == states.FAILED


def _failure(report: Report, stage: StageView) -> Markup:
    said = stage.failure_lines
    where = stage.row.output if stage.status.started is not None else stage.row.job_log
    link = where and element("a", "all of its output", href=report.link(where))
    return element(
        "section",
        element("h2", f"{stage.status.stage} failed"),
        element("p", stage.status.reason, class_="reason"),
        element("pre", "\n".join(said)) if said else None,
        element("p", link) if link else None,
        class_="failure",
    )


def _time_note(report: Report) -> Markup:
    return element("p", f"Local time, {_zone(report.now)}.", class_="note")


def _use_note(report: Report) -> Markup:
    if not any(stage.used for stage in report.view.stages):
        return Markup("")
    text = (
        "CPU: of what was asked for, or the number of processors that were busy in the mean. "
        "Memory: at its highest, without cached files. GPU: busy in the mean."
    )
    return element("p", text, class_="note")


def _curves(report: Report) -> list[Markup]:
    if not report.curves:
        return []
    files = dict.fromkeys(file for curves in report.curves for file in curves.files)
    links = [joined(element("a", file.name, href=report.link(file)), " ") for file in files]
    return [
        element("div", *map(chart, report.curves), class_="charts"),
        element("p", "From ", *links, class_="note"),
    ]


def _metadata(report: Report) -> list[Markup]:
    parts = [
        _details(stage.status.stage, stage.row.recorded)
        for stage in report.view.stages
        if stage.row.recorded
    ]
    return [*parts, _details("the launch, as it was submitted", report.view.record)]


def _details(title: str, record: Mapping[str, Any]) -> Markup:
    text = json.dumps(record, indent=2, ensure_ascii=False, default=str)
    return element("details", element("summary", title), element("pre", text))


def _footer(report: Report) -> Markup:
    looked = f"As of {_moment(report.now)}"
    if report.view.has_ended:
        return element("footer", f"{looked}.")
    return element("footer", f"{looked}; what has become of it since: ", _code_text(report))


def _code_text(report: Report) -> Markup:
    return element("code", report.command("report"))


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S} ({_zone(seconds)})"


def _zone(seconds: float) -> str:
    """Return how local time stands to UTC: ``UTC+01:00``."""
    offset = datetime.fromtimestamp(seconds, timezone.utc).astimezone().strftime("%z")
    return f"UTC{offset[:3]}:{offset[3:]}"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
