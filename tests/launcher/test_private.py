"""What a job may load: nothing that others could have put there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from launcher.errors import RecordError
from launcher.private import check_pickle, check_private, check_unwritten, sha256
from tests.conftest import lacks

# Nobody of this number has an account.
STRANGER = 54321


@pytest.fixture
def directory(hostile_path: Path) -> Path:
    made = hostile_path / "launch"
    made.mkdir(mode=0o700)
    (made / "job.pkl").write_bytes(b"as submitted")
    (made / "job.pkl").chmod(0o600)
    return made


def test_what_is_as_it_was_made_is_loaded(directory: Path) -> None:
    check_private(directory)
    check_unwritten(directory)
    check_pickle(directory / "job.pkl", sha256(directory / "job.pkl"))
    check_pickle(directory / "job.pkl", None)  # an older launcher recorded none


@pytest.mark.parametrize(
    ("mode", "said"), [(0o750, "others may read"), (0o777, "others may write to")]
)
def test_a_directory_that_is_open_to_others(directory: Path, mode: int, said: str) -> None:
    directory.chmod(mode)
    with pytest.raises(RecordError, match=rf"{said} .*chmod 700 '.*launch'"):
        check_private(directory)


def test_others_may_look_where_they_may_not_write(directory: Path) -> None:
    directory.chmod(0o755)
    check_unwritten(directory)


def test_another_pickle(directory: Path) -> None:
    before = sha256(directory / "job.pkl")
    (directory / "job.pkl").write_bytes(b"another")
    with pytest.raises(RecordError, match="is not what was written at submission"):
        check_pickle(directory / "job.pkl", before)


def test_a_link_in_place_of_the_pickle(directory: Path) -> None:
    (directory / "job.pkl").rename(directory / "moved")
    (directory / "job.pkl").symlink_to(directory / "moved")
    with pytest.raises(RecordError, match="is a link"):
        check_pickle(directory / "job.pkl", None)


def test_what_belongs_to_another_user(directory: Path) -> None:
    if os.geteuid() != 0:
        lacks("only root can give files away")
    os.chown(directory / "job.pkl", STRANGER, -1)
    with pytest.raises(RecordError, match=re.escape(f"belongs to user {STRANGER}")):
        check_pickle(directory / "job.pkl", None)
