"""The report of a launch: what stands in it, and that nothing in it is obeyed."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from launcher import api, cli
from launcher.errors import RecordError
from launcher.records import LAUNCH, LaunchRecords
from launcher.report import report
from launcher.report.charts import chart, thinned
from launcher.report.curves import read_curves
from launcher.report.data import QUEUED, REQUEUED, WAITS, Report
from launcher.report.markup import Markup, element
from launcher.report.ticks import linear_ticks, log_ticks, number_text, time_ticks
from launcher.view import LaunchView

EVIL = '<script src="http://evil.example/x.js"></script>\x1b[2J&amp;"\'\udc80'


class Page(HTMLParser):
    """Collects tags, attributes and text; complains of tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class Site:
    """A launch of three stages, whose past a test writes down. Times are seconds after it."""

    START = 1_700_000_000.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = LaunchRecords.create(folder / ".launches" / "one")
        resources = {"nodes": 1, "cpus_per_task": 4, "mem_gb": 8, "timeout_min": 60}
        names = {"output": "out", "log": "log", "metadata": "metadata.json"}
        stages = ("prepare", "train", "score")
        jobs = [
            {
                "stage": stage,
                "after": stages[number - 1] if number else None,
                "resources": resources,
                "image": {"name": "cpu", "asked": f"localhost:5000/cpu@sha256:{'ab' * 32}"},
                **{name: str(folder / f"{stage}.{suffix}") for name, suffix in names.items()},
            }
            for number, stage in enumerate(stages)
        ]
        root = {"path": str(folder), "commit": "f" * 40, "branch": EVIL, "dirty": True}
        self.records.write_launch(
            {
                "jobs": jobs,
                "created": self.START,
                "config": {"cluster": {"name": "slurm"}, "container": {"name": "docker"}},
                "plan": {"exp_dir": str(folder / "exp")},
                "command_line": ["launcher", "--note", EVIL],
                "notices": [f"notice {EVIL}"],
                "snapshot": {"roots": [root]},
            }
        )
        for number, stage in enumerate(stages):
            self.event(LAUNCH, 0, "submitted", stage=stage, job_id=str(number), process=None)
        self.event(LAUNCH, 0, "released")

    def event(self, journal: str, at: float, event: str, **fields: Any) -> None:
        line = json.dumps({"time": self.START + at, "event": event, **fields})
        with (self.records.directory / "events" / f"{journal}.jsonl").open("a") as file:
            file.write(f"{line}\n")

    def start(self, stage: str, at: float, attempt: int = 0) -> None:
        output = self.folder / f"{stage}.out"
        output.write_text(f"Traceback (most recent call last):\n{EVIL}\n", errors="replace")
        inode = output.stat().st_ino
        self.event(stage, at, "started", host="n7", attempt=attempt, output_inode=inode)

    def end(self, stage: str, at: float, state: str, reason: str = "", **metadata: Any) -> None:
        code = 0 if state == "done" else 1
        self.event(stage, at, "ended", state=state, reason=reason, exit_code=code)
        output = self.folder / f"{stage}.out"
        job = metadata.pop("job", {})
        if output.exists():  # by which the metadata is known for this run's
            job = {**job, "output_inode": output.stat().st_ino}
        metadata = {"state": state, "job": job, **metadata}
        (self.folder / f"{stage}.metadata.json").write_text(json.dumps(metadata))

    def page(self) -> tuple[str, Page]:
        text = report(self.records).read_text(encoding="utf-8")
        return text, Page(text)

    def report(self) -> Report:
        return Report.of(self.records, LaunchView.of(self.records), self.records.directory)


@pytest.fixture
def site(hostile_path: Path) -> Site:
    return Site(hostile_path)


def finished(site: Site) -> Site:
    used = {"cpu_s": 120.0, "wall_s": 60.0, "peak_memory_gb": 2.0, "oom_kills": 1}
    site.start("prepare", 10)
    site.end("prepare", 70, "done", results={"train": {"hours": 1.5}}, job={"used": used})
    site.start("train", 80)
    site.end("train", 200, "done", results={"steps": 9})
    site.start("score", 230)
    site.end("score", 260, "done", results={"clean": {"WER": 3.04}, "other": {"WER": 140.0}})
    return site


def test_what_stands_in_it(site: Site) -> None:
    _, page = finished(site).page()
    told = " ".join(page.texts)
    for text in ("exp", "done", "prepare", "3.0 %", "140.0 %", "clean", "50 %", "2.0 GiB"):
        assert text in told
    assert f"cpu: localhost:5000/cpu@sha256:{'ab' * 32}" in told
    assert "1 killed for lack of it" in told
    assert ("id", "timeline") in page.attributes
    assert told.index("score") < told.index("WER")


def test_nothing_in_it_is_obeyed_and_nothing_fetched(site: Site) -> None:
    site.start("prepare", 10)
    site.end("prepare", 20, "failed", f"died of {EVIL}", results={EVIL: {EVIL: EVIL}})
    text, page = site.page()
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "\x1b" not in text
    addresses = [value for name, value in page.attributes if name in ("href", "src")]
    assert addresses
    assert not any(re.match(r"[a-z]+:|//", each) for each in addresses)
    assert "url(" not in text
    assert not any(name.startswith("on") for name, _ in page.attributes)
    (policy,) = (value for name, value in page.attributes if value.startswith("default-src"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert 'died of <script src="http://evil.example/x.js">' in " ".join(page.texts)


def test_its_links_lead_to_the_files(site: Site, tmp_path: Path) -> None:
    from urllib.parse import unquote

    (tmp_path / "elsewhere").mkdir()
    written = report(finished(site).records, output=tmp_path / "elsewhere" / "a b.html")
    page = Page(written.read_text())
    links = [value for name, value in page.attributes if name == "href"]
    assert len(links) == 6  # output and metadata of each
    assert all((written.parent / unquote(link)).is_file() for link in links)


def test_what_a_stage_did_over_time(site: Site) -> None:
    site.start("prepare", 10)
    site.end("prepare", 70, "done")
    site.start("train", 80)
    site.event("train", 100, "requeued", reason="preempted", attempt=0)
    site.start("train", 150, attempt=1)
    site.end("train", 200, "failed", "exit status 1")
    told = [
        [(span.kind, span.start - site.START, span.end - site.START) for span in spans]
        for spans in site.report().spans
    ]
    assert told == [
        [(QUEUED, 0, 10), ("done", 10, 70)],
        [
            (WAITS, 0, 70),
            (QUEUED, 70, 80),
            (REQUEUED, 80, 100),
            (QUEUED, 100, 150),
            ("failed", 150, 200),
        ],
        [],
    ]


def test_a_launch_that_runs_is_shown_as_it_stands(site: Site) -> None:
    site.start("prepare", 10)
    text, _ = site.page()
    prepare, train, _ = site.report().spans
    assert prepare[-1].kind == "running"
    assert [span.kind for span in train] == [WAITS]
    assert "what has become of it since" in text


def test_a_damaged_launch_has_a_report_that_says_so(site: Site) -> None:
    (site.records.directory / "events" / "train.jsonl").write_text("{half")
    (site.folder / "prepare.metadata.json").write_text("not json")
    record = json.loads((site.records.directory / "launch.json").read_text())
    for name in ("config", "snapshot", "plan", "command_line", "notices", "created"):
        del record[name]
    (site.records.directory / "launch.json").write_text(json.dumps(record))
    site.start("prepare", 10)
    _, page = site.page()
    told = " ".join(page.texts)
    assert "damaged: its settings are not whole" in told
    assert "events/train.jsonl has 1 line that is damaged" in told


def test_it_is_private_and_replaced_whole(site: Site) -> None:
    first = report(finished(site).records)
    assert first.stat().st_mode & 0o777 == 0o600
    inode = first.stat().st_ino
    assert report(site.records).stat().st_ino != inode
    assert [each.name for each in first.parent.glob("*.html*")] == ["report.html"]
    with pytest.raises(RecordError, match="Choose another file with --output FILE"):
        report(site.records, output=site.folder / "no" / "folder.html")


def test_the_command_says_where_it_is(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished(site).folder)
    assert cli.main(["report", ".launches/one", "--output", "it.html"]) == 0
    assert capsys.readouterr().out == "report it.html\n"
    assert (site.folder / "it.html").is_file()
    assert api.report(".launches/one").name == "report.html"


def test_curves_of_several_files_are_one(tmp_path: Path) -> None:
    for number, rows in enumerate(("1,5,\n2,4,90\n3,3,\n", "3,2.5,\n4,2,50\nx,1,1\n5,nan,\n")):
        folder = tmp_path / "metrics" / f"from_{number}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"step,train_loss,valid_WER\n{rows}")
        os.utime(folder / "metrics.csv", (number, number))
    (tmp_path / "metrics" / "other.csv").write_text("step,a\n1,2\n2,3\n")
    loss, errors = read_curves([tmp_path, tmp_path])
    assert (loss.title, loss.is_percent) == ("Loss", False)
    assert loss.curves[0].points == ((1, 5), (2, 4), (3, 2.5), (4, 2))
    assert (errors.title, errors.is_percent) == ("Error rates", True)
    assert errors.curves[0].points == ((2, 90), (4, 50))


@pytest.mark.parametrize("content", [b"", b"step\n1\n2\n", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_files_that_are_no_curves_are_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    assert read_curves([tmp_path, tmp_path / "none"]) == []


@pytest.mark.parametrize(
    ("rows", "num_points"),
    [
        (["1,1e308", "2,-1e308", "3,1", "4,2"], 2),
        (["1,nan", "2,inf", "3,-inf", "4,1", "five,7", "5,2"], 2),
        (["1,1e199", "2,-1e199"], 2),
        (["1,1e199", "2,1e-199"], 2),
        (["1,5e-324", "2,0"], 2),
        (["1,1e17", "2,1e17"], 2),
        (["1e17,1", "100000000000000016,2"], 2),
        (["1e308,1", "-1e308,2", "3,3", "4,4"], 2),
        ([f"{step},{step % 97}" for step in range(100_000)], 100_000),
    ],
    ids=lambda value: ",".join(value)[:20] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("name", ["train_loss", "lr"])
def test_a_curve_of_any_numbers_stays_in_its_picture(
    tmp_path: Path, name: str, rows: list[str], num_points: int
) -> None:
    (tmp_path / "metrics.csv").write_text("\n".join([f"step,{name}", *rows]))
    (curves,) = read_curves([tmp_path])
    assert len(curves.curves[0].points) == num_points
    drawn = chart(curves)
    assert not re.search("nan|inf(?!o)", drawn)
    places = re.findall(r"(-?[\d.]+),(-?[\d.]+)", drawn)
    assert len(places) >= 2
    assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 240 for x, y in places)


def test_a_long_curve_keeps_its_extremes() -> None:
    points = [(float(step), 100.0 if step == 7777 else 0.0) for step in range(10_000)]
    kept = thinned(points)
    assert len(kept) <= 700
    assert (7777.0, 100.0) in kept
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)


def test_marks_of_axes_are_round() -> None:
    assert linear_ticks(0, 57_000, 6) == [0, 10_000, 20_000, 30_000, 40_000, 50_000]
    assert [number_text(each) for each in linear_ticks(0, 0.001, 4)] == [
        *("0", "0.00025", "0.0005", "0.00075", "0.001")
    ]
    assert linear_ticks(3, 3) == [3]
    assert log_ticks(0.005, 3) == pytest.approx([0.01, 0.1, 1])
    assert len(log_ticks(1e-9, 1e9)) <= 7
    assert log_ticks(2, 9) == pytest.approx([2, 5])
    for length in (0.5, 40, 4000, 400_000, 4_000_000, 400_000_000):
        assert 1 <= len(time_ticks(Site.START, Site.START + length)) <= 15


def test_text_is_no_markup() -> None:
    written = element("p", "<b>", Markup("<i>"), None, 1, 0.5, class_='"', title=None)
    assert written == '<p class="&quot;">&lt;b&gt;<i>10.5</p>'
