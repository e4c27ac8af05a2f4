"""Records of which a part is damaged: which part is said, and the rest is read."""

from __future__ import annotations

import json
import shutil

import pytest

from launcher.records import LAUNCH, LaunchRecords
from tests.cluster.faults.conftest import LocalSite, ended
from tests.cluster.faults.table import DAMAGED, OTHERS

pytestmark = [pytest.mark.cluster, pytest.mark.faults(DAMAGED)]


@pytest.fixture
def launch(local_site: LocalSite) -> LaunchRecords:
    """Return a launch of which every stage is done."""
    launch = local_site.launch("launch_name=damaged")
    assert {each.state for each in ended(launch).values()} == {"done"}
    return launch


def states(site: LocalSite, *asked: str) -> tuple[list[str], list[str]]:
    """Return the states that ``status --json`` tells, and what it calls damaged."""
    shown = site.run("status", *asked, "--json")
    assert "Traceback" not in shown.stderr
    told = json.loads(shown.stdout)
    return [each["state"] for each in told["stages"]], told["damaged"]


def test_half_a_line_is_told_and_the_next_is_not_lost_with_it(
    local_site: LocalSite, launch: LaunchRecords
) -> None:
    path = launch.directory / "events" / "fit.jsonl"
    with path.open("ab") as journal:
        journal.write(b'{"time": 1.0, "event": "en')
    reason = "told after the crash"
    launch.append("fit", "ended", state="failed", reason=reason, exit_code=3)
    found, damaged = states(local_site)
    assert found == ["done", "failed", "done"]
    assert damaged == ["events/fit.jsonl has 1 line that is damaged and passed over"]
    assert reason in local_site.run("status").stdout


def test_garbage_in_one_journal_costs_only_its_lines(
    local_site: LocalSite, launch: LaunchRecords
) -> None:
    path = launch.directory / "events" / f"{LAUNCH}.jsonl"
    path.write_bytes(b"\x00\xff\xfe[[[\n" + path.read_bytes())
    found, damaged = states(local_site)
    assert found == ["done"] * 3
    assert damaged == [f"events/{LAUNCH}.jsonl has 1 line that is damaged and passed over"]


def test_damaged_metadata_costs_the_figures_alone(
    local_site: LocalSite, launch: LaunchRecords
) -> None:
    (local_site.exp_dir / "fit.metadata.json").write_bytes(b'{"state": "do\x00')
    assert states(local_site)[0] == ["done"] * 3


def test_events_that_are_gone_are_no_state_that_was_never_told(
    local_site: LocalSite, launch: LaunchRecords
) -> None:
    shutil.rmtree(launch.directory / "events")
    assert "done" not in states(local_site)[0]
    assert "running" not in states(local_site)[0]


@pytest.mark.parametrize("left", [b"", b'{"schema": 1, "jobs": [{"sta', b"\x00\xff"])
def test_a_damaged_launch_is_named_and_others_are_read(
    local_site: LocalSite, launch: LaunchRecords, left: bytes
) -> None:
    assert ended(local_site.launch("launch_name=whole"))["score"].state == "done"
    (launch.directory / "launch.json").write_bytes(left)
    shown = local_site.run("status", "damaged")
    assert shown.returncode == 1
    assert "damaged/launch.json cannot be read as a launch record" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert states(local_site, "whole")[0] == ["done"] * 3
    listed = local_site.run("list")
    assert "whole" in listed.stdout
    assert "damaged" in listed.stdout + listed.stderr


@pytest.mark.faults(OTHERS)
def test_a_directory_that_others_may_write_to_is_shown_so_and_not_resumed(
    local_site: LocalSite, launch: LaunchRecords
) -> None:
    launch.directory.chmod(0o777)
    found, told = states(local_site)
    assert found == ["done"] * 3
    assert any("others may write to" in each and "chmod go-w" in each for each in told)
    refused = local_site.run("resume")
    assert refused.returncode == 1
    assert "others may write to" in refused.stderr
