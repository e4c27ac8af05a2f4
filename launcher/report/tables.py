"""Tables of a report: stages with what they asked for and used, and the figures they came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.display.render import duration
from launcher.report.data import QUEUED, Report, Span
from launcher.report.markup import Markup, element, joined
from launcher.results import figure_text, flat_figures, is_error_rate
from launcher.view import StageView

_HEADS = ("stage", "state", "node", "queued", "ran", "CPU", "memory", "GPU", "exit", "files")
_GPU = _HEADS.index("GPU")


def stage_table(report: Report) -> Markup:
    """Return the table of stages: a row for each."""
    pairs = zip(report.view.stages, report.spans, strict=True)
    rows = [_stage_cells(report, stage, spans) for stage, spans in pairs]
    rows.insert(0, [element("th", name, scope="col") for name in _HEADS])
    if not any(stage.asked.get("gpus_per_node") for stage in report.view.stages):
        rows = [[*cells[:_GPU], *cells[_GPU + 1 :]] for cells in rows]
    head, *rows_below = (element("tr", *cells) for cells in rows)
    table = element("table", element("thead", head), element("tbody", *rows_below), id="stages")
    return element("div", table, class_="wide")


def _stage_cells(report: Report, stage: StageView, spans: Sequence[Span]) -> list[Markup]:
    status, row, used = stage.status, stage.row, stage.used or {}
    state = row.shown_state
    files = [
        element("a", name, href=report.link(path))
        for name, path in (("log", row.log), ("output", row.output), ("metadata", row.metadata))
        if status.started is not None and path.exists()
    ]
    queued = [span.end - span.start for span in spans if span.kind == QUEUED]
    return [
        element("th", status.stage, scope="row"),
        element("td", state_mark(state), _muted(status.reason if state != "failed" else "")),
        element("td", stage.node or "", _job(status.job_id)),
        element("td", duration(sum(queued)) if queued else ""),
        element("td", *_time(stage)),
        element("td", *_cpu(stage, used)),
        element("td", *_memory(stage, used)),
        element("td", *_gpu(stage, used)),
        element("td", "" if status.exit_code is None else status.exit_code),
        element("td", *(joined(link, " ") for link in files)),
    ]


def state_mark(state: str) -> Markup:
    """Return a state with its colour."""
    return element("span", state, class_=f"state {state}")


def _time(stage: StageView) -> list[Markup | str]:
    limit_min = stage.asked.get("timeout_min")
    ran = duration(stage.run_s)
    again = f"attempt {stage.attempt + 1}" if stage.attempt else ""
    if not limit_min:
        return [ran, _muted(again)]
    limit_s = float(limit_min) * 60
    return [
        *_meter(stage.run_s, limit_s, ran, f"of {duration(limit_s)}"),
        _muted(again),
    ]


def _cpu(stage: StageView, used: Mapping[str, Any]) -> list[Markup | str]:
    asked = stage.asked.get("cpus_per_task")
    wall_s, cpu_s = used.get("wall_s"), used.get("cpu_s")
    if not wall_s or cpu_s is None:
        return [_muted(f"{asked} asked" if asked else "")]
    busy = cpu_s / wall_s
    if not asked:
        return [f"{busy:.1f}", _muted("in the mean")]
    return _meter(busy, asked, f"{100 * busy / asked:.0f} %", f"of {asked}")


def _memory(stage: StageView, used: Mapping[str, Any]) -> list[Markup | str]:
    asked, peak = stage.asked.get("mem_gb"), used.get("peak_memory_gb")
    killed = used.get("oom_kills") or 0
    note = _muted(f"{killed} killed for lack of it" if killed else "")
    if not peak:
        return [_muted(f"{asked:g} GiB asked" if asked else ""), note]
    limit = asked or used.get("memory_limit_gb")
    if not limit:
        return [memory_text(peak), note]
    return [*_meter(peak, limit, memory_text(peak), f"of {memory_text(limit)}"), note]


def _gpu(stage: StageView, used: Mapping[str, Any]) -> list[Markup | str]:
    asked, busy = stage.asked.get("gpus_per_node") or 0, used.get("gpu_util_percent")
    if not asked:
        return []
    if busy is None:
        return [_muted(f"{asked} asked")]
    peak = used.get("gpu_memory_gb")
    return [
        *_meter(busy, 100.0, f"{busy:.0f} %", f"of {asked}"),
        _muted(f"{memory_text(peak)} each at most" if peak is not None else ""),
    ]


def _meter(value: float | None, limit: float, text: str, of: str) -> list[Markup | str]:
    """Return a value over a bar that says how much of a limit it is."""
    if value is None:
        return [text]
    share = min(max(value / limit, 0.0), 1.0)
    near = " near" if share > 0.95 else ""
    bar = element("span", element("i", style=f"width:{100 * share:.0f}%"), class_=f"meter{near}")
    return [element("span", text, " ", element("small", of), class_="value"), bar]


def _job(job_id: str | None) -> Markup | str:
    return element("small", f"job {job_id}", class_="whole") if job_id else ""


def _muted(text: str) -> Markup | str:
    return element("small", text) if text else ""


def memory_text(gib: float) -> str:
    """Write an amount of memory: ``850 MiB``, ``4.0 GiB``."""
    return f"{gib * 1024:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB"


def result_tables(report: Report) -> Markup:
    """Return what the stages came to: a table of metrics over data sets, else single figures."""
    rated: list[Markup] = []
    others: list[Markup] = []
    for stage in report.view.stages:
        sets: dict[str, dict[str, str]] = {}
        single: dict[str, str] = {}
        for (*where, metric), value in flat_figures(stage.row.results):
            cells = sets.setdefault(" ".join(where), {}) if where else single
            cells[metric] = figure_text(metric, value)
        is_rated = any(is_error_rate(metric) for cells in sets.values() for metric in cells)
        tables = rated if is_rated else others
        tables += [_sets_table(stage.status.stage, sets)] if sets else []
        tables += [_figures(stage.status.stage, single)] if single else []
    if not rated and not others:
        return Markup("")
    # What a launch is for comes first, and its last word before that of the stages on the way.
    groups = [element("div", *each, class_="results") for each in (rated[::-1], others) if each]
    return element("div", *groups, id="results")


def _sets_table(stage: str, sets: Mapping[str, Mapping[str, str]]) -> Markup:
    metrics = dict.fromkeys(metric for cells in sets.values() for metric in cells)
    head = element("tr", element("th", ""), *(element("th", name, scope="col") for name in metrics))
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", cells.get(metric, "")) for metric in metrics),
        )
        for name, cells in sets.items()
    ]
    caption = element("caption", stage)
    return element("table", caption, element("thead", head), element("tbody", *rows))


def _figures(stage: str, figures: Mapping[str, str]) -> Markup:
    rows = [
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in figures.items()
    ]
    return element("table", element("caption", stage), element("tbody", *rows))
