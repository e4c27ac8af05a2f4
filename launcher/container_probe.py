"""Asking a recipe for its stages inside its image, where the host cannot import it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.config import LaunchConfig
from launcher.containers.base import INSIDE, Container, ContainerRun, ImageFormat, Mount
from launcher.images.pin import ImagePin
from launcher.images.verify import prepare_image
from launcher.job import guard
from launcher.job.container_run import passed_on
from launcher.launch import home_environment, image_cache
from launcher.plan import Start
from launcher.recipe import Recipe


def container_starter(
    recipe: Recipe, config: LaunchConfig, container: Container, pin: ImagePin
) -> Start:
    """Return how a command is started in an image, with the recipe's code to be seen there.

    Raises:
        LauncherError: the image is not to be had.
    """
    image = prepare_image(pin, container, image_cache(config))

    def start(command: Sequence[str], folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        inside, home, scratch = (folder / name for name in ("inside", "home", "tmp"))
        for each in (inside, home, scratch):
            each.mkdir()
        shutil.copyfile(guard.__file__, inside / "guard.py")
        mounts = [Mount(root, root) for root in recipe.code_roots]
        mounts += [Mount(folder, folder), Mount(inside, INSIDE, read_only=True)]
        if container.image_format != ImageFormat.OCI:
            mounts.insert(0, Mount(scratch, Path("/tmp")))
        run = ContainerRun(
            command=tuple(command),
            working_dir=recipe.directory,
            image=image.argument,
            name=folder.name,
            labels={"launcher.stage": "probe"},
            mounts=tuple(mounts),
            environment={
                **image.environment,
                **passed_on(os.environ, config.pass_env),
                **recipe.environment(inherit=False),
                **home_environment(home),
            },
            uid=os.getuid(),
            gids=tuple(dict.fromkeys([os.getgid(), *sorted(os.getgroups())])),
            stop_grace_s=0,
        )
        return container.command(run), container.client_environment(run, os.environ)

    return start
