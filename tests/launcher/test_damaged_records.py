"""Records that somebody has edited, or a disk has spoilt: said in a line, and the rest is read."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import api, cli, config, launches, prepare
from launcher.clean import cleaning
from launcher.config import LaunchConfig
from launcher.errors import UsageError
from launcher.plan import StagePlan
from launcher.recorded.events import ENDED
from launcher.records import LaunchRecords
from launcher.status import ENDED as ENDED_STATES
from tests.cluster.faults.table import DAMAGED
from tests.launcher.conftest import REPOSITORY, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.faults(DAMAGED)]

Run = Callable[..., tuple[int, str, str]]

# In place of the value of a field.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "x" * 5000, "/", "\x00", "\x1b[31m", "\ud800"),
    *([], {}, [[]], [3], {"a": 3}, {"\x1b": {"a": [10**400]}}, [{}, "\x1b"]),
)
# Each value is put into every third field, each command sees every so manieth of them.
STRIDE = 3
MOST_KEYS = 25
CONTENTS = (
    *(b"", b"{", b"[]", b"null", b'"\\u001b"', b"\xff\xfe"),
    *(b"[" * 100_000, b"[" * 99 + b"]" * 99),
)
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("status", "--explain"),
    ("status", "--watch"),
    ("list",),
    ("list", "--json"),
    ("report", "--output", "report.html"),
    ("clean", "--dry-run", "--older-than", "0m"),
    ("wait", "--timeout-min", "0"),
    ("logs",),
    ("logs", "fit", "-f"),
    ("cancel",),
    ("resume", "--explain"),
    ("rerun", "score", "--dry-run"),
    ("reproduce", "--dry-run"),
    ("shell", "fit", "--dry-run"),
    ("__complete", "logs", ""),
)
FILES = (
    *("launch.json", "launch.jsonl", "fit.jsonl", "outputs", "configs.json", "manifest.json"),
    *("fit.metadata.json", "claim"),
)
# Of a stage's metadata, where nothing is read.
UNREAD = ("configs", "packages", "command", "host", "devices", "seeds", "code", "environment")
EXIT_STATUSES = (0, 1, 2, 124, 130)


class Launched:
    """A launch of three stages that has ended, whose records are put back after each damage."""

    def __init__(self, recipe: Path) -> None:
        self.recipe = recipe
        self.records = LaunchRecords(recipe / ".launches" / "one")
        exp, own = recipe / "exp" / "tiny", self.records.directory
        self.files = {
            "launch.json": own / "launch.json",
            "launch.jsonl": own / "events" / "launch.jsonl",
            "fit.jsonl": own / "events" / "fit.jsonl",
            "outputs": own / "outputs" / "fit.json",
            "configs.json": own / "configs.json",
            "manifest.json": own / "snapshot" / "manifest.json",
            "fit.metadata.json": exp / "fit.metadata.json",
            "claim": exp / ".launch.claim.json",
        }
        self.whole = {name: path.read_bytes() for name, path in self.files.items()}
        self.plan = StagePlan.from_record(self.records.read_launch()["plan"])

    def put_back(self) -> None:
        for name, path in self.files.items():
            if not path.exists() or path.read_bytes() != self.whole[name]:
                path.write_bytes(self.whole[name])

    def put(self, file: str, field: tuple[Any, ...], value: Any, *, line: int = 0) -> None:
        """Put a value in place of a field."""
        lines = self.lines(file)
        lines[line] = json.dumps(with_value(json.loads(lines[line]), field, value)).encode()
        self.files[file].write_bytes(b"\n".join(lines) + b"\n")

    def lines(self, file: str) -> list[bytes]:
        """Return the records of a file: its lines, if it is a journal."""
        text = self.whole[file]
        return text.splitlines() if file.endswith(".jsonl") else [text]


def fields_of(value: Any, below: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the values of a record stand; of lists the first, of mappings not too many."""
    if below and below[-1] in UNREAD:
        return
    if below:
        yield below
    if isinstance(value, dict):
        for key, inner in list(value.items())[:MOST_KEYS]:
            yield from fields_of(inner, (*below, key))
    elif isinstance(value, list) and value:
        yield from fields_of(value[0], (*below, 0))


def with_value(record: Any, field: tuple[Any, ...], value: Any) -> Any:
    if not field:
        return value
    changed = list(record) if isinstance(record, list) else dict(record)
    changed[field[0]] = with_value(record[field[0]], field[1:], value)
    return changed


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Return a launch that was really made, by the local cluster, without a container."""
    recipe = write_recipe(tmp_path_factory.mktemp("damaged") / "tiny" / "asr")
    words = ["--cluster", "local", "--follow", "launch_name=one", "stop_grace_s=0.1"]
    subprocess.run(
        [sys.executable, "-m", "launcher", *words],
        cwd=recipe,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    return Launched(recipe)


@pytest.fixture
def run(
    launched: Launched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Return the command line as a function; what waits is interrupted, nothing is started."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    configs: dict[str, LaunchConfig] = {}
    compose = config.load_config

    def load_config(*given: Any, **named: Any) -> LaunchConfig:
        key = str((given, named))
        if key not in configs:
            configs[key] = compose(*given, **named)
        return copy.deepcopy(configs[key])

    for module in (launches, cleaning, prepare):
        monkeypatch.setattr(module, "load_config", load_config)
    monkeypatch.setattr(cleaning, "orphans", lambda *_: ([], []))  # no runtime is asked
    monkeypatch.setattr(prepare, "probe_plan", lambda *_, **__: launched.plan)
    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.chdir(launched.recipe)
    yield command
    launched.put_back()


def check(run: Run, command: tuple[str, ...], damage: object) -> None:
    """Run a command, which has to say what it has to say, and no traceback."""
    status, out, err = run(*command)
    assert status in EXIT_STATUSES, (damage, command, err)
    # What would be submitted is shown byte for byte, except to a terminal.
    shown = err if "--dry-run" in command else out + err
    assert "\x1b" not in shown, (damage, command)


@pytest.mark.parametrize("file", FILES)
def test_no_value_of_any_field_is_a_traceback(launched: Launched, run: Run, file: str) -> None:
    number = 0
    for line, text in enumerate(launched.lines(file)):
        for place, field in enumerate(fields_of(json.loads(text))):
            for value in VALUES[place % STRIDE :: STRIDE]:
                launched.put(file, field, value, line=line)
                check(run, COMMANDS[number % len(COMMANDS)], (line, field, value))
                launched.put_back()
                number += 1
    assert number > len(COMMANDS)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content[:8]))
def test_no_content_of_any_file_is_a_traceback(
    launched: Launched, run: Run, file: str, content: bytes
) -> None:
    for command in COMMANDS:
        launched.files[file].write_bytes(content)
        check(run, command, content[:8])
        launched.put_back()


@pytest.mark.parametrize(
    ("file", "line", "field", "value", "said"),
    [
        ("launch.json", 0, ("notices",), True, "launch.json: notices is true, and is to be a list"),
        ("launch.json", 0, ("created",), "now", "created is a text of 3 characters, and is to be"),
        ("launch.json", 0, ("config", "stop_grace_s"), None, "config.stop_grace_s is null"),
        ("launch.json", 0, ("plan", "stages"), {}, "plan.stages is a mapping"),
        ("launch.json", 0, ("plan", "stages", 0, "name"), 3, "plan.stages[0].name is 3"),
        ("launch.json", 0, ("jobs", 1, "resources"), "x", "jobs[1].resources is a text"),
        ("launch.json", 0, ("jobs", 1, "mounts"), 1e308, "mounts is a number of many digits"),
        ("launch.jsonl", 1, ("job_id",), "x" * 5000, "launch.jsonl has 1 line that is damaged"),
        ("launch.jsonl", 1, ("stage",), "fit\0", "(line 2: stage is one that can be none"),
        ("launch.jsonl", 1, ("stage",), 3, "(line 2: stage is 3"),
        ("fit.jsonl", 1, ("host",), ["n1"], "(line 2: host is a list, and is to be a text"),
        ("fit.jsonl", 1, ("time",), 10**400, "(line 2: time is a number of many digits"),
        ("fit.jsonl", 2, ("used", "cpu_s"), "1", "(line 3: used.cpu_s is a text"),
        ("fit.metadata.json", 0, ("results",), [], "fit.metadata.json: results is a list"),
        ("fit.metadata.json", 0, ("job", "used"), "all", "fit.metadata.json: job.used is a text"),
        ("fit.metadata.json", 0, ("job",), 3, "fit.metadata.json: job is 3"),
    ],
)
def test_file_and_field_are_named_and_the_rest_is_shown(
    launched: Launched, run: Run, file: str, line: int, field: Any, value: Any, said: str
) -> None:
    launched.put(file, field, value, line=line)
    status, out, err = run("status", "one")
    assert (status, err) == (0, "")
    assert said in out
    assert "prepare  done" in out
    status, out, _ = run("status", "one", "--json")
    assert any(said in each for each in json.loads(out)["damaged"])
    run("report", "one", "--output", "report.html")
    assert said in (launched.recipe / "report.html").read_text()


def test_metadata_that_is_no_json_is_named(launched: Launched, run: Run) -> None:
    launched.files["fit.metadata.json"].write_bytes(b'{"state": "do')
    status, out, _ = run("status", "one")
    assert status == 0
    assert "exp/tiny/fit.metadata.json is damaged: " in out


def test_figures_of_a_stage_may_be_any(launched: Launched, run: Run) -> None:
    figures = {"loss": float("nan"), "\x1b": 1, "n": 10**400, "test": {"WER": 1e308}}
    launched.put("fit.metadata.json", ("results",), figures)
    status, out, _ = run("status")
    assert status == 0
    assert r"loss nan, \x1b 1, n a number of 401 digits" in out
    assert "WER test 1e+308" in out


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"schema": 1, "jobs": 3}'])
def test_of_a_launch_that_cannot_be_read_it_is_said_what_can_be_done(
    launched: Launched, run: Run, content: bytes
) -> None:
    launched.files["launch.json"].write_bytes(content)
    status, _, err = run("status", "one")
    assert status == 1
    assert "one/launch.json" in err
    assert "Launch again" in err
    assert "rm -r" in err
    assert "damaged  " in run("list")[1]
    assert "its state cannot be told" in run("clean", "--dry-run")[1]


@pytest.mark.parametrize(
    "command",
    [("resume",), ("rerun", "fit"), ("reproduce",), ("shell", "fit", "--", "true")],
    ids=" ".join,
)
def test_nothing_is_run_from_a_record_that_is_not_whole(
    launched: Launched, run: Run, command: tuple[str, ...]
) -> None:
    launched.put("launch.json", ("jobs", 1, "environment"), {"PATH": 3})
    status, _, err = run(*command)
    assert status == 1
    assert "nothing is run from" in err
    assert "jobs[1].environment.PATH is 3, and is to be a text" in err


def test_what_others_wrote_into_a_claim_is_no_command_to_the_terminal(
    launched: Launched, run: Run
) -> None:
    (holder,) = json.loads(launched.whole["claim"])["holders"]
    escapes = {"user": "\x1b[2J", "host": "elsewhere", "launch": "/nowhere\x1b]0;T\x07/one"}
    launched.put("claim", ("holders", 0), {**holder, **escapes})
    _, out, err = run("reproduce", "--dry-run")
    assert r"/nowhere\x1b]0;T\x07/one of \x1b[2J's" in err
    assert "\x1b" not in out + err


def test_a_removed_output_is_not_one_that_was_never_printed(launched: Launched, run: Run) -> None:
    output = launched.recipe / "exp" / "tiny" / "fit.out"
    kept = output.with_name("kept")
    output.rename(kept)
    try:
        status, _, err = run("logs", "fit")
    finally:
        kept.rename(output)
    assert status == 2
    assert "exp/tiny/fit.out is not there: it was removed or renamed" in err


@pytest.mark.parametrize(
    "words",
    [
        *(("wait", "--timeout-min", value) for value in ("nan", "-5", "inf", "1e300")),
        *(("clean", "--keep", value) for value in ("-3", "9" * 30)),
        *(("clean", "--older-than", value) for value in ("nan", "3x", "9" * 400 + "d")),
        *(("logs", "-n", value) for value in ("-1", "9" * 30)),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_a_number_out_of_range_is_refused_with_the_range(run: Run, words: tuple[str, ...]) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert words[1] in err
    assert " from 0 to " in err or "at most 36500d" in err


def test_numbers_are_in_range_in_python_too(launched: Launched, run: Run) -> None:
    with pytest.raises(UsageError, match="timeout_s nan"):
        api.wait(launched.records, timeout_s=float("nan"))
    with pytest.raises(UsageError, match="older_than_s -1"):
        api.left_over(older_than_s=-1)


@pytest.mark.parametrize("name", ["/", "", ".", "x" * 5000, "no/such/folder", "run.py/x"])
def test_a_report_that_cannot_be_written_is_one_line(run: Run, name: str) -> None:
    status, out, err = run("report", "--output", name)
    assert status in (1, 2)
    assert out == ""
    assert err.count("\n") == 1
    assert "--output" in err


@pytest.mark.parametrize("name", ["\0", "x" * 5000])
def test_a_launch_whose_name_can_be_none_is_one_message(run: Run, name: str) -> None:
    status, _, err = run("status", name)
    assert status == 2
    assert err.count("\n") == 1
    assert "\0" not in err


def test_the_ends_of_stages_are_the_same_to_those_who_read_and_who_tell() -> None:
    assert set(ENDED) == ENDED_STATES
