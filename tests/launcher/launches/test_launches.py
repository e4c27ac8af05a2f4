"""``status`` and ``cancel`` on launches that are gone, damaged, or half submitted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launcher.commands.cancel import cancel_launch
from launcher.commands.status import show_status
from launcher.config import load_config, to_record
from launcher.errors import RecordError, UsageError
from launcher.launches import find_launch, find_open_launch, find_stages, launches_in
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords

SETTINGS = to_record(load_config({}, [], recipe_dir=Path("/nonexistent")))


@pytest.fixture
def records(hostile_path: Path) -> LaunchRecords:
    records = LaunchRecords.create(hostile_path / ".launches" / "one")
    write(records, SETTINGS)
    return records


def write(records: LaunchRecords, config: Any) -> None:
    files = {
        name: f"/nonexistent/fit{suffix}"
        for name, suffix in (("output", ".out"), ("log", ".log"), ("metadata", ".metadata.json"))
    }
    records.write_launch({"jobs": [{"stage": "fit", **files}], "config": config})


@pytest.mark.parametrize(
    "config",
    [None, 4, {}, {**SETTINGS, "cluster": 3}, {**SETTINGS, "cluster": {"name": "local", "pol": 1}}],
)
def test_settings_that_are_not_whole_are_told(records: LaunchRecords, config: Any) -> None:
    write(records, config)
    with pytest.raises(RecordError, match=r"launch\.json is damaged: its settings"):
        cancel_launch(records, force=False)
    assert show_status(records) == 0  # which needs none of them


def test_a_launch_whose_submission_was_cut_off_can_be_cancelled(
    records: LaunchRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cancel_launch(records, force=False) == 0
    assert "cancelling fit" in capsys.readouterr().out
    assert cancel_launch(records, force=True) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert show_status(records) == 0
    assert "cancelled before it was submitted" in capsys.readouterr().out


def test_a_job_that_vanished_is_not_said_to_run(
    records: LaunchRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(["sleep", "20"]) as job:
        process = ProcessId.of(job.pid).to_record()
        records.append(LAUNCH, "submitted", stage="fit", job_id="7", process=process)
        records.append("fit", "started")
        show_status(records)
        assert re.search("^fit +running", capsys.readouterr().out, re.MULTILINE)
        job.kill()
    show_status(records)
    said = capsys.readouterr().out
    assert re.search("^fit +failed", said, re.MULTILINE)
    assert "its process is gone without a result" in said


def test_a_slurm_that_is_not_there_is_said_once(
    records: LaunchRecords, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = load_config({"cluster": "slurm"}, [], recipe_dir=Path("/nonexistent"))
    write(records, to_record(slurm))
    records.append(LAUNCH, "submitted", stage="fit", job_id="7", process=None)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    show_status(records)
    said = capsys.readouterr().out
    assert "there is no scontrol here. Type the command on a login node" in said
    assert "of the cluster. What follows is what is on record." in said
    assert re.search(r"^fit +pending +7 +[\d.]+ s$", said, re.MULTILINE)


def test_a_launch_that_cannot_be_looked_into(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot look into .*File name too long"):
        find_launch("x" * 5000, None, working_dir=tmp_path)


def test_words_are_a_launch_or_stages_of_it(records: LaunchRecords, tmp_path: Path) -> None:
    launch = str(records.directory)
    assert find_stages([launch], None, working_dir=tmp_path) == (records, [])
    assert find_stages(["fit", launch], None, working_dir=tmp_path) == (records, ["fit"])
    with pytest.raises(
        UsageError, match=r"neither a launch nor a stage 'fti'\. Did you mean 'fit'"
    ):
        find_stages([launch, "fti"], None, working_dir=tmp_path)
    with pytest.raises(UsageError, match="two launches at once"):
        find_stages([launch, launch], None, working_dir=tmp_path)


@pytest.fixture
def three(tmp_path: Path) -> dict[str, LaunchRecords]:
    """Return launches of two recipes in one folder, by name, in the order they were made."""
    made = {}
    for number, (name, recipe) in enumerate([("zz", "a"), ("mm", "b"), ("aa", "a")]):
        folder = tmp_path / recipe
        folder.mkdir(exist_ok=True)
        (folder / "run.py").touch()
        records = made[name] = LaunchRecords.create(tmp_path / ".launches" / name)
        files = {key: f"/nonexistent/fit.{key}" for key in ("output", "log", "metadata")}
        records.write_launch(
            {
                "jobs": [{"stage": "fit", **files}],
                "config": SETTINGS,
                "created": 1e9 + number,
                "recipe_dir": str(folder),
            }
        )
    return made


def asked(function: Any, recipe: Path, name: str | None = None) -> str:
    folder = f"launches_dir: {recipe.parent / '.launches'}"
    (recipe / "conf").mkdir(exist_ok=True)
    (recipe / "conf" / "launch.yaml").write_text(folder)
    found = function(name, str(recipe), working_dir=recipe.parent)
    return str(found.directory.name)


def test_the_latest_launch_is_the_recipes_and_the_last_that_was_made(
    three: dict[str, LaunchRecords], tmp_path: Path
) -> None:
    names = [each.directory.name for each in launches_in(tmp_path / ".launches")]
    assert names == ["zz", "mm", "aa"]
    assert asked(find_launch, tmp_path / "a") == "aa"
    assert asked(find_launch, tmp_path / "b") == "mm"
    assert asked(find_launch, tmp_path / "b", "zz") == "zz"  # one that is named is that one
    (three["mm"].directory / "launch.json").unlink()
    with pytest.raises(UsageError, match="there are no launches of that recipe in"):
        asked(find_launch, tmp_path / "b")


def test_a_launch_is_named_by_a_part_of_its_name(
    three: dict[str, LaunchRecords], tmp_path: Path
) -> None:
    for name in ("20260101-fsdd-asr", "20260102-mini_an4-asr", "20260103-mini_an4-asr"):
        record = three["aa"].read_launch()
        LaunchRecords.create(tmp_path / ".launches" / name).write_launch(record)
    (tmp_path / ".launches" / "20260102-mini_an4-asr" / "launch.json").write_text("{")  # damaged
    recipe = tmp_path / "a"
    assert asked(find_launch, recipe, "fsdd") == "20260101-fsdd-asr"
    assert asked(find_launch, recipe, "0102") == "20260102-mini_an4-asr"
    with pytest.raises(UsageError) as told:
        asked(find_launch, recipe, "mini_an4")
    head, *names = str(told.value).splitlines()
    assert head == "several launches have 'mini_an4' in their name. Type more of it:"
    assert sorted(names) == ["  20260102-mini_an4-asr", "  20260103-mini_an4-asr"]
    with pytest.raises(UsageError, match="Did you mean '20260103-mini_an4-asr' or '20260102-mini"):
        asked(find_launch, recipe, "20260103-mini_an-asr")

    def stages(*words: str) -> tuple[str, list[str]]:
        records, named = find_stages(list(words), str(recipe), working_dir=tmp_path)
        return records.directory.name, named

    assert stages("fit", "fsdd") == ("20260101-fsdd-asr", ["fit"])
    three["aa"].directory.rename(tmp_path / ".launches" / "fit-again")
    assert stages("fit")[1] == ["fit"]  # and not the launch
    assert stages("fit-") == ("fit-again", [])
    with pytest.raises(UsageError, match="two launches at once: fsdd, 0103"):
        stages("fsdd", "0103")
    with pytest.raises(UsageError, match="several launches have '2026'"):
        stages("2026", "fit")
    with pytest.raises(UsageError, match=r"'fit,score' is no stage: separate .*: fit score"):
        stages("fit,score")


def test_without_a_name_the_launch_that_has_not_ended_is_cancelled(
    three: dict[str, LaunchRecords], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"several launches have not ended[^!]*zz\n[^!]*aa$"):
        asked(find_open_launch, tmp_path / "a")
    end = {"state": "done", "reason": "", "exit_code": 0}
    three["aa"].append("fit", "ended", **end)
    assert asked(find_open_launch, tmp_path / "a") == "zz"
    three["zz"].append("fit", "ended", **end)
    assert asked(find_open_launch, tmp_path / "a") == "aa"  # which says that it has ended
