"""What is examined: the settings of a recipe, and the folders that its launches would use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from launcher.config import LaunchConfig, load_config
from launcher.launch import image_cache
from launcher.launches.dirs import launches_dir
from launcher.recipe import Recipe, find_recipe
from launcher.stage_images import images_lock


@dataclass(frozen=True)
class Subject:
    """Settings and folders of a recipe."""

    recipe: Recipe
    config: LaunchConfig
    launches_dir: Path
    image_cache: Path
    images_lock: Path

    @classmethod
    def of(
        cls,
        recipe: str | None,
        *,
        working_dir: Path,
        cluster: str | None = None,
        container: str | None = None,
    ) -> Subject:
        """Return what a launch with these choices would use.

        Raises:
            LauncherError: there is no such recipe, cluster or container, or a setting is wrong.
        """
        found = find_recipe(recipe, working_dir=working_dir)
        choices = {"cluster": cluster, "container": container}
        config = load_config(choices, [], recipe_dir=found.directory)
        return cls(
            found,
            config,
            launches_dir(found, config),
            image_cache(config),
            images_lock(config),
        )

    def folders(self) -> dict[str, Path]:
        """Return the folders that launches write to, by what they are for."""
        return {
            "launches": self.launches_dir,
            "outputs": self.recipe.directory / "exp",
            "images": self.image_cache,
            "scratch": Path(os.environ.get("TMPDIR") or "/tmp"),
            "shared memory": Path("/dev/shm"),
        }
