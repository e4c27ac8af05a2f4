"""Which image each stage of a launch runs in, as the lock file has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher.config import LaunchConfig
from launcher.containers.base import Container, ImageFormat
from launcher.display.render import short_path
from launcher.errors import ImageError
from launcher.images.pin import ImagePin
from launcher.images.source import LOCK_FILE
from launcher.launch import image_of
from launcher.plan import StagePlan
from launcher.settings.stage import stage_config


def resolve_pins(
    config: LaunchConfig, container: Container, plan: StagePlan
) -> dict[str, ImagePin]:
    """Return the image of each stage; none where stages run on the host.

    Raises:
        ImageError: one is not pinned.
    """
    if container.image_format == ImageFormat.NONE:
        return {}
    return {stage.name: _pin_of_stage(config, stage.name) for stage in plan.stages}


def _pin_of_stage(config: LaunchConfig, stage: str) -> ImagePin:
    try:
        return resolve_pin_of(config, image_of(config, stage))
    except ImageError as error:
        settings = stage_config(config, stage)
        if settings.image != "auto" or not settings.num_gpus:
            raise
        raise ImageError(
            f"{stage} asks for GPUs, so image=auto takes 'gpu', and {error}\n"
            f"Or name another image for it: stages.{stage}.image=cpu"
        ) from error


def named_images(config: LaunchConfig) -> list[str]:
    """Return the images that settings name, for all stages or for one."""
    stages = [stage_config(config, str(stage)).image for stage in config.stages]
    return [image for image in dict.fromkeys([config.image, *stages]) if image != "auto"]


def resolve_pin_of(config: LaunchConfig, image: str) -> ImagePin:
    """Return what an image's name stands for.

    Raises:
        ImageError: it is not pinned.
    """
    from launcher.images.verify import resolve_pin

    return resolve_pin(image, images_lock(config), allow_unpinned=config.allow_unpinned)


def images_lock(config: LaunchConfig) -> Path:
    """Return the file that pins names to digests."""
    if config.images_lock is None:
        return LOCK_FILE
    return Path(config.images_lock).expanduser().absolute()


def changed_image_inputs(config: LaunchConfig, pins: Mapping[str, ImagePin]) -> list[str]:
    """Return a warning for each image whose inputs have changed since it was pinned."""
    if not pins:
        return []
    from launcher.images.verify import changed_inputs

    lock = images_lock(config)
    named = {pin.name: changed_inputs(pin, lock) for pin in pins.values()}
    return [
        f"image {name} was built from other files than there are now: {', '.join(changed)} "
        "changed since it was pinned."
        for name, changed in named.items()
        if changed
    ]


def missing_image(config: LaunchConfig) -> str | None:
    """Say why the image that is meant when none is named is not to be had; None when it is."""
    image = config.image if config.image != "auto" else "cpu"
    try:
        resolve_pin_of(config, image)
    except ImageError as error:
        lock = images_lock(config)
        return str(error).replace(str(lock), short_path(lock))
    return None
