"""Claims of the folders that a launch writes to, told by the records of the launches in them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.clusters.local import LocalCluster, Settings
from launcher.errors import ClaimError, RecordError
from launcher.launch import Launch
from launcher.launches.claim_files import CLAIM
from launcher.launches.claims import claim, folders_of, refusal, release
from launcher.processes.identity import ProcessId
from launcher.records import LAUNCH, LaunchRecords
from tests.cluster.faults.table import DAMAGED, DISK_FULL, TWO_LAUNCHES
from tests.launcher.test_launch import make_launch

CLUSTER = LocalCluster(Settings())


@pytest.fixture
def launch(recipe_dir: Path) -> Launch:
    """A launch that has its launch directory."""
    return another(make_launch(recipe_dir), "first")


def another(launch: Launch, name: str) -> Launch:
    directory = launch.directory.with_name(name)
    LaunchRecords.create(directory)
    return replace(launch, directory=directory)


def write_record(launch: Launch, *, ended: bool) -> None:
    """Have a launch be one that was submitted, and whose stages wait, or are done."""
    records = LaunchRecords(launch.directory)
    own = ProcessId.of(os.getpid()).to_record()
    records.write_launch(
        {
            "jobs": [job.to_record() for job in launch.jobs],
            "launcher": own,
            "config": {"cluster": {"name": "local"}, "stop_grace_s": 1.0},
        }
    )
    for job in launch.jobs:
        records.append(LAUNCH, "submitted", stage=job.stage, job_id="1", process=own)
    records.append(LAUNCH, "released")
    if ended:
        end(launch)


def end(launch: Launch) -> None:
    for job in launch.jobs:
        LaunchRecords(launch.directory).append(
            job.stage, "ended", state="done", reason="", exit_code=0
        )


def holders(launch: Launch) -> list[str]:
    """The launches that stand in its claims, which have to be the same in all folders."""
    told = [json.loads((folder / CLAIM).read_text()) for folder in folders_of(launch)]
    names = [[each["launch"] for each in claims["holders"]] for claims in told]
    assert all(each == names[0] for each in names)
    return names[0]


def only_claim(launch: Launch) -> Path:
    """Leave the claim of one of its folders alone, and return it."""
    first, *others = folders_of(launch)
    for folder in others:
        (folder / CLAIM).unlink()
    return first / CLAIM


def gone_process() -> ProcessId:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = ProcessId.of(child.pid)
    child.communicate()
    return gone


@pytest.mark.faults(TWO_LAUNCHES)
def test_a_second_launch_is_refused_with_the_first_ones_name(launch: Launch) -> None:
    assert refusal(launch) is None
    claim(launch, CLUSTER, queue=False)
    second = another(launch, "second")
    with pytest.raises(ClaimError, match=r"first writes to .*: it is being submitted"):
        claim(second, CLUSTER, queue=False)
    write_record(launch, ended=False)
    with pytest.raises(ClaimError, match=r"first writes .*prepare is pending.*--queue.* cancel "):
        claim(second, CLUSTER, queue=False)
    assert "first writes to" in str(refusal(second))
    assert holders(launch) == [str(launch.directory)]


@pytest.mark.faults(TWO_LAUNCHES)
def test_what_has_ended_holds_nothing(launch: Launch) -> None:
    claim(launch, CLUSTER, queue=False)
    write_record(launch, ended=True)
    second = another(launch, "second")
    assert refusal(second) is None
    assert claim(second, CLUSTER, queue=False).jobs[0].behind == ()
    assert holders(launch) == [str(second.directory)]


def test_what_is_gone_holds_nothing(launch: Launch) -> None:
    claim(launch, CLUSTER, queue=False)
    shutil.rmtree(launch.directory)
    second = another(launch, "second")
    claim(second, CLUSTER, queue=False)
    assert holders(launch) == [str(second.directory)]


def test_a_launcher_that_was_killed_before_it_wrote_a_record_holds_nothing(launch: Launch) -> None:
    claim(launch, CLUSTER, queue=False)
    for folder in folders_of(launch):
        path = folder / CLAIM
        record = json.loads(path.read_text())
        record["holders"][0]["launcher"] = gone_process().to_record()
        path.write_text(json.dumps(record))
    claim(another(launch, "second"), CLUSTER, queue=False)


@pytest.mark.faults(TWO_LAUNCHES)
def test_one_is_queued_behind_all_that_are_open(launch: Launch) -> None:
    claim(launch, CLUSTER, queue=False)
    write_record(launch, ended=False)
    second = another(launch, "second")
    with pytest.raises(ClaimError, match=r"first is just being submitted|prepare is pending"):
        claim(second, CLUSTER, queue=False)
    queued = claim(second, CLUSTER, queue=True)
    assert [job.behind for job in queued.jobs] == [(launch.directory,), (), ()]
    write_record(second, ended=False)
    third = claim(another(launch, "third"), CLUSTER, queue=True)
    assert third.jobs[0].behind == (launch.directory, second.directory)
    end(second)  # cancelled, while the first still runs
    fourth = another(launch, "fourth")
    with pytest.raises(ClaimError, match=r"first writes to"):
        claim(fourth, CLUSTER, queue=False)


def test_what_was_not_submitted_lets_go(launch: Launch) -> None:
    claim(launch, CLUSTER, queue=False)
    write_record(launch, ended=False)
    second = another(launch, "second")
    claim(second, CLUSTER, queue=True)
    release(second)
    assert holders(launch) == [str(launch.directory)]
    release(launch)
    assert not any((folder / CLAIM).exists() for folder in folders_of(launch))
    release(launch)


@pytest.mark.faults(TWO_LAUNCHES, DAMAGED)
def test_what_cannot_be_told_is_refused_and_how_to_overrule_is_said(launch: Launch) -> None:
    claim(launch, CLUSTER, queue=False)
    (launch.directory / "launch.json").write_text('{"schema": 1, "jo')
    second = another(launch, "second")
    for queue in (False, True):
        with pytest.raises(ClaimError, match=r"cannot be told: .*launch\.json.* remove .*claim"):
            claim(second, CLUSTER, queue=queue)
    path = only_claim(launch)
    path.write_bytes(b"\x00\xff{")
    with pytest.raises(ClaimError, match=r"claim\.json says .* cannot be read: .* remove it"):
        claim(second, CLUSTER, queue=False)
    assert "cannot be read" in str(refusal(second))
    path.unlink()
    claim(second, CLUSTER, queue=False)


def test_a_launch_of_a_host_that_cannot_be_looked_into_is_not_taken_for_gone(
    launch: Launch,
) -> None:
    claim(launch, CLUSTER, queue=False)
    path = only_claim(launch)
    record = json.loads(path.read_text())
    holder = record["holders"][0]
    holder |= {"launch": "/scratch-of-login2/.launches/x", "host": "login2", "user": "\x1b[2Jmo"}
    path.write_text(json.dumps(record))
    second = another(launch, "second")
    with pytest.raises(ClaimError, match="cannot be seen on this host") as refused:
        claim(second, CLUSTER, queue=False)
    assert "\x1b" not in str(refused.value)
    holder["host"] = socket.gethostname()
    path.write_text(json.dumps(record))
    claim(second, CLUSTER, queue=False)


@pytest.mark.faults(TWO_LAUNCHES)
def test_of_many_at_one_instant_one_gets_the_folder(launch: Launch) -> None:
    many = [another(launch, f"one {number}") for number in range(8)]
    start, got, refused = threading.Barrier(len(many)), [], []

    def try_it(each: Launch) -> None:
        start.wait()
        try:
            got.append(claim(each, CLUSTER, queue=False))
        except ClaimError:
            refused.append(each)

    threads = [threading.Thread(target=try_it, args=(each,)) for each in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(refused) == 7
    assert holders(launch) == [str(got[0].directory)]


def test_it_is_made_where_locks_are_none(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("launcher.launches.claim_files.fcntl.flock", without_locks)
    claim(launch, CLUSTER, queue=False)
    with pytest.raises(ClaimError):
        claim(another(launch, "second"), CLUSTER, queue=False)


def test_others_may_do_with_it_what_they_may_with_the_folder(launch: Launch) -> None:
    folder = folders_of(launch)[0]
    for mode, expected in ((0o700, 0o600), (0o770, 0o640), (0o775, 0o644)):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        claim(launch, CLUSTER, queue=False)
        assert stat.S_IMODE((folder / CLAIM).stat().st_mode) == expected
        release(launch)


@pytest.mark.faults(DISK_FULL)
def test_a_full_disk_leaves_no_claim(launch: Launch, small_disk: Path) -> None:
    plan = replace(
        launch.plan,
        exp_dir=small_disk / "exp",
        stages=tuple(replace(each, log_dir=small_disk / "exp") for each in launch.plan.stages),
    )
    full = replace(launch, plan=plan)
    folder = small_disk / "exp"
    folder.mkdir()
    (folder / ".launch.claim.lock").touch()
    with (small_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(RecordError, match="No space left on device"):
        claim(full, CLUSTER, queue=False)
    assert [each.name for each in folder.iterdir()] == [".launch.claim.lock"]


@pytest.mark.parametrize("what", ["nobody", "a link to nothing"])
def test_a_claim_that_names_nobody_holds_nothing(launch: Launch, what: str) -> None:
    for folder in folders_of(launch):
        folder.mkdir(parents=True, exist_ok=True)
        if what == "nobody":
            (folder / CLAIM).write_text('{"holders": []}')
        else:
            (folder / CLAIM).symlink_to("/nonexistent")
    claim(launch, CLUSTER, queue=False)
    assert (folders_of(launch)[0] / CLAIM).is_file()


def test_a_pipe_in_place_of_a_claim_is_refused_at_once(launch: Launch) -> None:
    folder = folders_of(launch)[0]
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / CLAIM)
    with pytest.raises(ClaimError, match="it is no regular file"):
        claim(launch, CLUSTER, queue=False)
