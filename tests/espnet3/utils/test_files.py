from __future__ import annotations

import errno
from pathlib import Path

import pytest

from espnet3.utils.errors import StorageError, storage_errors
from espnet3.utils.files import atomic_directory, atomic_path, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_earlier_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "stats.json"
    write_atomically(target, "first")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "first"
    assert names(tmp_path) == ["stats.json"]


def test_a_temporary_keeps_the_suffixes(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.jsonl.gz") as temporary:
        assert temporary.name.endswith(".jsonl.gz")
        temporary.write_bytes(b"x")


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with atomic_directory(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_directory(target) as folder:
        (folder / "b").write_text("2")
        raise ZeroDivisionError
    assert names(target) == ["a"]
    with atomic_directory(target) as folder:
        (folder / "b").write_text("2")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["data"]


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"disk is full.*free some space"),
        storage_errors(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "a file stands where a folder is needed"),
        ("file/below", "a part of the path is a file"),
        ("x" * 300, "the name is too long"),
        ("loop/below", "symbolic links lead in a circle"),
        ("nul\0", "cannot hold a NUL byte"),
    ],
)
def test_a_path_that_can_be_no_folder_is_told_so(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    folder = tmp_path / name
    with pytest.raises(StorageError, match=message), storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "absent").read_text()
