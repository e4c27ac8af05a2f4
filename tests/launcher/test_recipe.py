"""Which recipe is meant, and what its run.py is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import UsageError
from launcher.recipe import DEFAULT_RECIPE, find_recipe, project_root, recipe_arguments


def test_the_working_directory_is_the_recipe_if_it_has_a_run_py(
    recipe_dir: Path, tmp_path: Path
) -> None:
    assert find_recipe(None, working_dir=recipe_dir).directory == recipe_dir
    assert find_recipe("asr", working_dir=recipe_dir.parent).directory == recipe_dir
    assert find_recipe("asr/run.py", working_dir=recipe_dir.parent).directory == recipe_dir
    default = find_recipe(None, working_dir=tmp_path).directory
    assert default == project_root() / DEFAULT_RECIPE


def test_a_folder_without_run_py_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run\.py in it.*--recipe DIR"):
        find_recipe(".", working_dir=tmp_path)


@pytest.mark.parametrize("asked", ["~nosuchuser/x", "x" * 5000, "loop"])
def test_a_path_that_cannot_be_followed_is_no_recipe(asked: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"is not a recipe: .*--recipe DIR"):
        find_recipe(asked, working_dir=tmp_path)


def test_code_root_is_the_git_top_else_the_project_else_the_recipe(recipe_dir: Path) -> None:
    top = recipe_dir.parent.parent
    assert find_recipe(str(recipe_dir), working_dir=top).code_root == recipe_dir
    (recipe_dir.parent / "pyproject.toml").touch()
    assert find_recipe(str(recipe_dir), working_dir=top).code_root == recipe_dir.parent
    (top / ".git").mkdir()
    assert find_recipe(str(recipe_dir), working_dir=top).code_root == top


TRAINING = ["--training_config", "conf/training.yaml"]
INFERENCE = ["--inference_config", "conf/inference.yaml"]
METRICS = ["--metrics_config", "conf/metrics.yaml"]


@pytest.mark.parametrize(
    ("given", "defaults"),
    [
        ([], [*TRAINING, *INFERENCE, *METRICS]),
        (["--flag"], [*TRAINING, *INFERENCE, *METRICS]),
        (["--count_words_config", "a"], [*TRAINING, *INFERENCE, *METRICS]),
        (["--training_config", "a"], [*INFERENCE, *METRICS]),
        (["--inference_config=a", "--training_config=b"], METRICS),
        (["--train_config", "a", "--infer_config", "b", "--metric_config=c"], []),
    ],
)
def test_each_standard_config_that_is_not_given_is_the_recipes(
    recipe_dir: Path, given: list[str], defaults: list[str]
) -> None:
    recipe = find_recipe(str(recipe_dir), working_dir=recipe_dir)
    for role in ("inference", "metrics"):
        (recipe_dir / "conf" / f"{role}.yaml").touch()
    assert recipe_arguments(given, recipe, working_dir=recipe_dir) == [*defaults, *given]


def test_a_standard_config_that_the_recipe_lacks_is_not_passed(recipe_dir: Path) -> None:
    recipe = find_recipe(str(recipe_dir), working_dir=recipe_dir)
    assert recipe_arguments([], recipe, working_dir=recipe_dir) == TRAINING


def test_paths_that_exist_here_are_made_absolute(recipe_dir: Path, tmp_path: Path) -> None:
    recipe = find_recipe(str(recipe_dir), working_dir=tmp_path)
    (tmp_path / "my.yaml").touch()
    (tmp_path / "train").touch()
    given = ["--training_config", "my.yaml", "--labels_config=./my.yaml", "--name", "train"]
    assert recipe_arguments(given, recipe, working_dir=tmp_path) == [
        *("--training_config", f"{tmp_path}/my.yaml"),
        f"--labels_config={tmp_path}/my.yaml",
        *("--name", "train"),
    ]
    given = ["--training_config", "conf/training.yaml"]  # exists in the recipe's folder only
    assert recipe_arguments(given, recipe, working_dir=tmp_path) == given


def test_python_path_leaves_out_what_it_cannot_express(recipe_dir: Path) -> None:
    recipe = find_recipe(str(recipe_dir), working_dir=recipe_dir)
    assert ":" in str(recipe.code_root)
    assert recipe.python_path == [project_root()]
