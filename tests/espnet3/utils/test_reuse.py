from __future__ import annotations

from pathlib import Path

import pytest

from espnet3.utils.reuse import Reuse


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "stats.json"
    path.write_text("{}")
    return path


def test_output_made_from_the_same_key_is_kept(tmp_path: Path, output: Path) -> None:
    key = {"model": {"layers": 4}, "data": ["a", Path("b")]}
    Reuse(tmp_path / ".done.json", key).mark_done([output])
    assert Reuse(tmp_path / ".done.json", key).reasons_to_redo() == []


def test_a_changed_key_is_named_with_both_values(tmp_path: Path, output: Path) -> None:
    marker = tmp_path / ".done.json"
    Reuse(marker, {"model": {"layers": 4}, "seed": 0}).mark_done([output])
    reasons = Reuse(marker, {"model": {"layers": 6}}).reasons_to_redo()
    assert reasons == ["model.layers: 4 -> 6", "seed: 0 -> (absent)"]


def test_altered_or_missing_output_is_named(tmp_path: Path, output: Path) -> None:
    reuse = Reuse(tmp_path / ".done.json", {})
    reuse.mark_done([output])
    output.write_text("changed")
    assert reuse.reasons_to_redo() == ["missing or altered: stats.json"]
    output.unlink()
    assert reuse.reasons_to_redo() == ["missing or altered: stats.json"]


def test_no_record_or_a_broken_one_means_redo(tmp_path: Path, output: Path) -> None:
    reuse = Reuse(tmp_path / ".done.json", {})
    assert reuse.reasons_to_redo() == ["no earlier output"]
    reuse.marker.write_text('{"key": ')
    assert "cannot be read" in reuse.reasons_to_redo()[0]
    reuse.mark_done([output])
    reuse.forget()
    assert reuse.reasons_to_redo() == ["no earlier output"]


@pytest.mark.parametrize(
    "record", ["[]", "3", '{"key": {}}', '{"key": {}, "outputs": [3]}', '{"key": {}, "outputs": 3}']
)
def test_a_record_of_another_shape_means_redo(tmp_path: Path, record: str) -> None:
    reuse = Reuse(tmp_path / ".done.json", {})
    reuse.marker.write_text(record)
    assert "cannot be read" in reuse.reasons_to_redo()[0]


def test_output_that_is_not_there_is_never_recorded(tmp_path: Path) -> None:
    reuse = Reuse(tmp_path / ".done.json", {})
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        reuse.mark_done([tmp_path / "absent.json"])
    assert not reuse.marker.exists()
