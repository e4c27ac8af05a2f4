"""References lead to the package that knows the data, and slips in them are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet3.data import DatasetReference, load_dataset
from espnet3.data.reference import load_package
from espnet3.utils.errors import ConfigError, DataError

PACKAGE = """
from .where import NAME
class DatasetBuilder: ...
class Dataset:
    def __init__(self, split, recipe_dir, data_dir, speaker=None):
        self.seen = (NAME, split, recipe_dir, data_dir, speaker)
"""


def write_recipe(folder: Path, name: str) -> Path:
    package = folder / "dataset"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    (package / "where.py").write_text(f"NAME = {name!r}")
    return folder


def test_own_data(hostile_path: Path) -> None:
    recipe = write_recipe(hostile_path / "mine", "mine")
    reference = {"data_src_args": {"split": "train", "speaker": "ann"}}
    dataset = load_dataset(reference, recipe_dir=recipe, data_dir=hostile_path / "data")
    assert dataset.seen == ("mine", "train", recipe, hostile_path / "data", "ann")


def test_two_recipes_side_by_side(tmp_path: Path) -> None:
    mine = write_recipe(tmp_path / "mine", "mine")
    theirs = write_recipe(tmp_path / "theirs", "theirs")
    reference = {"data_src": str(theirs), "data_src_args": {"split": "test"}}
    other = load_dataset(reference, recipe_dir=mine, data_dir=tmp_path / "data")
    own = load_dataset(
        {"data_src_args": {"split": "test"}}, recipe_dir=mine, data_dir=tmp_path / "data"
    )
    assert own.seen[0] == "mine"
    assert other.seen == ("theirs", "test", theirs, theirs / "data", None)


def test_a_recipe_of_egs3_by_name(tmp_path: Path) -> None:
    recipe_dir, data_dir = DatasetReference(data_src="mini_an4/asr").locate(
        recipe_dir=tmp_path, data_dir=tmp_path / "data"
    )
    assert (recipe_dir / "run.py").is_file()
    assert recipe_dir.parts[-3:] == ("egs3", "mini_an4", "asr")
    assert data_dir == recipe_dir / "data"


def test_unknown_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_src 'mini_an5/asr' leads to no recipe"):
        load_dataset({"data_src": "mini_an5/asr"}, recipe_dir=tmp_path, data_dir=tmp_path)


def test_recipe_without_dataset_package(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no dataset package"):
        load_package(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data_src_arg": {}}, "unknown key 'data_src_arg'. Did you mean 'data_src_args'"),
        ("train", "'train'; a mapping is needed"),
        ({"data_src_args": "train"}, "data_src_args is 'train'; a mapping is needed"),
        ({"data_src_args": {"split": "train", "speker": "x"}}, "'speker'. Did you mean 'speaker'"),
        ({"data_src": 3}, "data_src is 3; a recipe"),
        ({"data_src_args": {}}, "'split' is needed and missing"),
    ],
)
def test_slips_are_named(tmp_path: Path, entry: object, message: str) -> None:
    recipe = write_recipe(tmp_path / "mine", "mine")
    with pytest.raises(ConfigError, match=message):
        load_dataset(entry, recipe_dir=recipe, data_dir=tmp_path)  # type: ignore[arg-type]


def test_a_package_that_fails_can_be_mended(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "mine", "mine")
    (recipe / "dataset" / "__init__.py").write_text("raise RuntimeError('slip')")
    with pytest.raises(RuntimeError, match="slip"):
        load_package(recipe)
    (recipe / "dataset" / "__init__.py").write_text("MENDED = True")
    assert load_package(recipe).MENDED
