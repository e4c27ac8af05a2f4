"""Building an image, with what it was built from written on it, and finding it again."""

from __future__ import annotations

import json

from launcher.errors import ImageError
from launcher.images.engine import BuildRequest, Engine, LocalImage, Say
from launcher.images.lock import LockEntry
from launcher.images.reference import Reference, is_digest, parse_reference, same_repository
from launcher.images.source import ImageSource

_NAME_LABEL = "launcher.image"
_BASE_LABEL = "launcher.base"
_INPUTS_LABEL = "launcher.inputs"


def build(
    engine: Engine, source: ImageSource, *, base: str | None, pull: bool, say: Say
) -> LocalImage:
    """Build an image from its Dockerfile and lock, and write on it what it was built from.

    Args:
        engine: what builds.
        source: the image.
        base: another base than that of image.yaml.
        pull: ask the registry for the base even if it is here.
        say: takes the lines of the build.

    Raises:
        ImageError: the base cannot be had, or a step failed.
    """
    inputs = source.inputs()
    found_base = _fixed_base(engine, base or source.base, pull=pull, say=say)
    request = BuildRequest(
        files={"Dockerfile": source.dockerfile, "requirements.lock": source.requirements},
        arguments={"BASE": found_base, "TORCH_INDEX": source.torch_index},
        labels={
            _NAME_LABEL: source.name,
            _BASE_LABEL: found_base,
            _INPUTS_LABEL: json.dumps(inputs, sort_keys=True),
        },
        tag=_local_tag(source.name),
    )
    image_id = engine.build(request, say)
    image = engine.inspect(image_id)
    if image is None:
        raise ImageError(f"{engine.name} built {image_id} and does not have it")
    return image


def latest_build(engine: Engine, name: str) -> LocalImage:
    """Return the image of that name that was built last on this machine.

    Raises:
        ImageError: there is none.
    """
    image = engine.inspect(_local_tag(name))
    if image is None or image.labels.get(_NAME_LABEL) != name:
        raise ImageError(
            f"{engine.name} has built no image '{name}'. Type: "
            f"python -m launcher image build {name}"
        )
    return image


def lock_entry(image: LocalImage, reference: Reference | None) -> LockEntry:
    """Return what the lock file says of an image.

    Args:
        image: as an engine has it.
        reference: by which a registry has it, with its digest; None for an image that none has.
    """
    return LockEntry(
        repository=reference.repository if reference else None,
        digest=reference.digest if reference else None,
        image_id=image.image_id,
        base=image.labels.get(_BASE_LABEL),
        inputs=_inputs(image),
        built=image.created.partition(".")[0].removesuffix("Z") + "Z" if image.created else None,
    )


def _local_tag(name: str) -> str:
    """Return the name in this machine's store that building an image gives it, and nothing else."""
    return f"espnet3-launcher/{name}:latest"


def _fixed_base(engine: Engine, base: str, *, pull: bool, say: Say) -> str:
    """Return the base as a digest, which it is turned into once, here, if it was a tag."""
    image = engine.inspect(base)
    if (image is None or pull) and not is_digest(base):
        say(f"pulling the base {base}")
        try:
            engine.pull(base, say)
        except ImageError as error:
            raise ImageError(
                f"the base {error}\nAnother one, with python3 and its module venv, can be named: "
                "--base REFERENCE"
            ) from error
        image = engine.inspect(base)
    if image is None:
        raise ImageError(f"the base {base} is not here, and an image id cannot be pulled")
    if is_digest(base) or (reference := parse_reference(base)).digest:
        return base
    for known in image.repo_digests:
        if same_repository(parse_reference(known).repository, reference.repository):
            return known
    return image.image_id


def _inputs(image: LocalImage) -> dict[str, str]:
    try:
        inputs = json.loads(image.labels.get(_INPUTS_LABEL, "{}"))
    except ValueError:
        return {}
    return inputs if isinstance(inputs, dict) else {}
